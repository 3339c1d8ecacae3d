//! The engine with the real small model: neighbours do not matter, nothing aborts, cancelling is quick.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/server.rs"]
mod server;

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use llm_server::{
    config::{self, EngineConfig, KnownModel},
    engine::{
        self, Adapters, Busy, Claimant, Engine, Enough, Event, Failed, Finish, Finished, Gbnf,
        Grammar, Job, Piece, Sampling, Tuning,
        fit::{self, FitError, Plan},
        llama::{self, Llama, LoadError, Weights},
        model::{DecodeError, Model, Row, Vocab},
    },
};
use tokio::sync::mpsc::UnboundedReceiver;

const LONG: Duration = Duration::from_mins(5);

fn init() {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
}

fn model_file() -> PathBuf {
    server::fetch_model();
    let lock = llm_server::lock::Lock::builtin();
    let entry = lock.get(server::MODEL).unwrap();
    llm_server::lock::Store::at(server::models()).path(server::MODEL, entry)
}

fn settings(overrides: &[&str]) -> EngineConfig {
    // One thread: other tests run beside this one, and two that spin for the same core are far slower.
    let overrides: Vec<_> = overrides
        .iter()
        .copied()
        .chain(["engine.threads = 1"])
        .map(str::to_owned)
        .collect();
    let known = KnownModel {
        name: server::MODEL.into(),
        trained_context: Some(8192),
    };
    config::load(&config::Source::built_in(), &overrides, &[known])
        .unwrap()
        .engine
}

fn load(path: &Path, config: &EngineConfig) -> Result<(Plan, Arc<Weights>), FitError> {
    let plan = fit::fit(path, config)?;
    let weights = Weights::load(path, &plan, &mut |_| true)?;
    Ok((plan, weights))
}

struct Running {
    engine: Engine,
    weights: Arc<Weights>,
}

fn start(overrides: &[&str]) -> Running {
    start_file(&model_file(), overrides)
}

fn start_file(path: &Path, overrides: &[&str]) -> Running {
    init();
    let config = settings(overrides);
    let (plan, weights) = load(path, &config).unwrap();
    let shared = Arc::clone(&weights);
    let tuning = Tuning {
        queue: 64,
        ..Tuning::default()
    };
    let (engine, _thread) =
        engine::start(tuning, move || Llama::open(shared, &config, &plan)).unwrap();
    Running { engine, weights }
}

impl Running {
    fn job(&self, prompt: &str, max_tokens: u32) -> Job {
        Job {
            prompt: self.weights.tokenize(prompt, true, true),
            media: Vec::new(),
            max_tokens,
            shift: None,
            forgotten: 0,
            sampling: Sampling {
                temperature: 0.0,
                ..Sampling::default()
            },
            grammar: None,
            stop: Vec::new(),
            enough: Enough::default(),
            visible: Vec::new(),
            stop_tokens: Vec::new(),
            prediction: Vec::new(),
            ignore_eos: false,
            score_prompt: false,
            min_tokens: 0,
            logprobs: None,
            tenant: Some(0),
            adapters: Adapters::default(),
            claimant: Claimant::default(),
            queue_wait: LONG,
            deadline: LONG,
        }
    }

    fn ask(&self, job: Job) -> (String, Result<Finished, Failed>) {
        let (pieces, end) = collect(self.engine.submit(job).unwrap());
        (pieces.into_iter().map(|piece| piece.text).collect(), end)
    }

    fn is_idle_within(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.engine.busy() != Busy::default() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}

fn collect(mut events: UnboundedReceiver<Event>) -> (Vec<Piece>, Result<Finished, Failed>) {
    let mut pieces = Vec::new();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Started { .. } | Event::Prompt(_) => {}
            Event::Text(piece) => pieces.push(piece),
            Event::End(end) => return (pieces, end),
        }
    }
    panic!("a job must end");
}

#[test]
fn the_small_model_knows_the_capital_of_france() {
    let running = start(&["engine.context = 512"]);
    let (text, end) = running.ask(running.job("The capital of France is", 3));
    assert!(text.contains("Paris"), "{text:?}");
    assert_eq!(end.unwrap().reason, Finish::Length);
}

#[test]
fn an_answer_is_the_same_alone_and_beside_seven_others() {
    let running = start(&["engine = {context = 512, parallel = 8}"]);
    let prompts: Vec<_> = (0..8)
        .map(|n| format!("Story number {n}: once upon a time in a town"))
        .collect();
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| running.ask(running.job(prompt, 24)).0)
        .collect();
    let together: Vec<_> = prompts
        .iter()
        .map(|prompt| running.engine.submit(running.job(prompt, 24)).unwrap())
        .collect();
    let together = together.into_iter().map(|events| {
        let (pieces, end) = collect(events);
        end.unwrap();
        pieces
            .into_iter()
            .map(|piece| piece.text)
            .collect::<String>()
    });
    assert_eq!(together.collect::<Vec<_>>(), alone);
}

#[test]
fn a_prompt_seen_before_is_not_computed_again_and_answers_alike() {
    let running = start(&["engine = {context = 1024, parallel = 2}"]);
    let prompt = "A long list: ".to_owned() + &"one two three four five ".repeat(20);
    let (first, end) = running.ask(running.job(&prompt, 8));
    assert_eq!(end.unwrap().usage.cached_tokens, 0);
    let (second, end) = running.ask(running.job(&prompt, 8));
    let usage = end.unwrap().usage;
    assert_eq!(usage.cached_tokens, usage.prompt_tokens - 1);
    assert_eq!(second, first);
}

/// All come while the first computes what they share.
fn answers_with_a_common_beginning(path: &Path, times: usize, tolerance: f32) -> f64 {
    let overrides = ["engine = {context = 512, parallel = 4}"];
    let history = "The story of the lighthouse keeper and his seven cats is long. ".repeat(times);
    let prompts = ["It begins", "It ends", "Nobody knows", "Cats"];
    let prompts = prompts.map(|end| format!("{history}{end} in"));
    let job = |running: &Running, prompt: &str| Job {
        logprobs: Some(1),
        ..running.job(prompt, 1)
    };
    let answer = |events| {
        let (pieces, end) = collect(events);
        end.unwrap();
        let tokens = pieces.into_iter().flat_map(|piece| piece.tokens);
        tokens.map(|it| (it.token, it.logprob)).next().unwrap()
    };
    let running = start_file(path, &overrides);
    let together = prompts.each_ref().map(|prompt| {
        let job = job(&running, prompt);
        running.engine.submit(job).unwrap()
    });
    let together = together.map(answer);
    assert!(running.is_idle_within(LONG));
    let computed = running.engine.watch().done().prefill_tokens;
    let whole = prompts
        .each_ref()
        .map(|prompt| running.weights.tokenize(prompt, true, true).len());
    let whole: usize = whole.iter().sum();
    // One after the other each goes on where the one before is cut back to.
    let alone = start_file(path, &overrides);
    let alone = prompts
        .each_ref()
        .map(|prompt| answer(alone.engine.submit(job(&alone, prompt)).unwrap()));
    for ((token, logprob), (same, close)) in together.into_iter().zip(alone) {
        assert_eq!(token, same);
        assert!(
            (logprob - close).abs() <= tolerance,
            "{logprob} and alone {close}"
        );
    }
    computed as f64 / whole as f64
}

#[test]
fn a_beginning_that_comes_to_many_at_once_is_computed_once_and_means_the_same_to_each() {
    let computed = answers_with_a_common_beginning(&model_file(), 16, 0.0);
    // Each prompt's own end and one beginning, nothing twice.
    assert!(computed < 0.33, "{computed}");
}

#[test]
fn a_recurrent_beginning_that_comes_to_many_at_once_means_the_same_to_each() {
    let computed = answers_with_a_common_beginning(&encoders::hybrid(), 5, 0.1);
    // The first may be past the place before the others come; one of these computes it once more.
    assert!(computed < 0.6, "{computed}");
}

#[test]
fn a_seed_repeats_an_answer_and_another_seed_does_not() {
    let running = start(&["engine.context = 512"]);
    let sampled = |seed| {
        let sampling = Sampling {
            temperature: 1.5,
            seed,
            ..Sampling::default()
        };
        running
            .ask(Job {
                sampling,
                ..running.job("Once upon a time", 32)
            })
            .0
    };
    assert_eq!(sampled(7), sampled(7));
    assert_ne!(sampled(7), sampled(8));
}

#[test]
fn scores_belong_to_the_text_and_rank_the_chosen_token_first_when_greedy() {
    let running = start(&["engine.context = 512"]);
    let job = Job {
        logprobs: Some(5),
        ..running.job("The capital of France is", 8)
    };
    let (pieces, end) = collect(running.engine.submit(job).unwrap());
    end.unwrap();
    let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let tokens: Vec<_> = pieces.iter().flat_map(|piece| &piece.tokens).collect();
    assert_eq!(tokens.len(), 8);
    assert_eq!(
        String::from_utf8(tokens.iter().flat_map(|t| t.bytes.clone()).collect()).unwrap(),
        text
    );
    for token in tokens {
        assert_eq!(token.top.len(), 5);
        assert_eq!(
            (token.top[0].token, token.top[0].logprob),
            (token.token, token.logprob)
        );
        assert!(
            token
                .top
                .windows(2)
                .all(|pair| pair[0].logprob >= pair[1].logprob)
        );
        assert!(token.top.iter().map(|t| t.logprob.exp()).sum::<f32>() <= 1.0 + 1e-4);
    }
}

fn grammar(gbnf: &str) -> Grammar {
    Grammar::Gbnf(Gbnf {
        gbnf: gbnf.into(),
        ..Gbnf::default()
    })
}

#[test]
fn a_grammar_is_followed_to_its_end() {
    let running = start(&["engine.context = 512"]);
    let gbnf = r#"root ::= "{\"answer\": " ("true" | "false") "}""#;
    let (text, end) = running.ask(Job {
        grammar: Some(grammar(gbnf)),
        ..running.job("Is water wet? JSON:", 40)
    });
    assert!(
        ["{\"answer\": true}", "{\"answer\": false}"].contains(&text.as_str()),
        "{text}"
    );
    assert_eq!(end.unwrap().reason, Finish::Eos);
}

#[test]
fn bad_grammars_end_their_request_in_words_and_nothing_else() {
    let running = start(&["engine.context = 512"]);
    for gbnf in [
        "root ::= (",
        "x ::= \"a\"",
        "root ::= root \"a\"",
        "root ::= (\"a\"{1000000}){1000000}",
        "\0",
        "%llguidance {}",
    ] {
        let end = running
            .ask(Job {
                grammar: Some(grammar(gbnf)),
                ..running.job("x", 4)
            })
            .1;
        assert!(
            matches!(&end, Err(Failed::Unacceptable(why)) if why.contains("grammar")),
            "{gbnf:?}: {end:?}"
        );
    }
    assert!(
        running
            .ask(running.job("The capital of France is", 3))
            .0
            .contains("Paris")
    );
}

/// Settings at and past the edges of sense, each on its own.
fn extremes() -> Vec<Sampling> {
    let base = || Sampling {
        seed: 1,
        ..Sampling::default()
    };
    vec![
        Sampling {
            temperature: 1e30,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..base()
        },
        Sampling {
            temperature: 1e-30,
            ..base()
        },
        Sampling {
            top_k: i32::MAX,
            top_p: 0.0,
            ..base()
        },
        Sampling {
            min_p: 1.0,
            typical_p: 0.0,
            ..base()
        },
        Sampling {
            top_n_sigma: 0.001,
            ..base()
        },
        Sampling {
            xtc_probability: 1.0,
            xtc_threshold: 0.0,
            ..base()
        },
        Sampling {
            repeat_penalty: 1e-20,
            repeat_last_n: i32::MAX,
            ..base()
        },
        Sampling {
            repeat_penalty: 1e20,
            frequency_penalty: 1e20,
            presence_penalty: -1e20,
            repeat_last_n: -1,
            ..base()
        },
        Sampling {
            dry_multiplier: 100.0,
            dry_base: 1e10,
            dry_allowed_length: 0,
            ..base()
        },
        Sampling {
            dry_multiplier: 1.0,
            dry_sequence_breakers: vec![String::new(), "x".repeat(10_000)],
            ..base()
        },
        Sampling {
            mirostat: 1,
            mirostat_tau: 0.0,
            mirostat_eta: 1e10,
            ..base()
        },
        Sampling {
            mirostat: 2,
            mirostat_tau: -5.0,
            ..base()
        },
        Sampling {
            dynatemp_range: 1e10,
            dynatemp_exponent: -3.0,
            ..base()
        },
        Sampling {
            logit_bias: vec![(0, f32::NEG_INFINITY), (1, 1e30)],
            ..base()
        },
        Sampling {
            logit_bias: (0..49152).map(|token| (token, f32::NEG_INFINITY)).collect(),
            ..base()
        },
        Sampling {
            logit_bias: vec![(-5, 1.0)],
            ..base()
        },
    ]
}

#[test]
fn extreme_sampler_settings_answer_or_are_refused_and_never_abort() {
    let running = start(&["engine.context = 256"]);
    let begun = Instant::now();
    for sampling in extremes() {
        let shown = format!("{sampling:?}")
            .chars()
            .take(300)
            .collect::<String>();
        let end = running
            .ask(Job {
                sampling,
                ..running.job("Once upon a time", 6)
            })
            .1;
        assert!(
            matches!(
                end,
                Ok(_) | Err(Failed::Unacceptable(_) | Failed::Decode(_))
            ),
            "{shown}: {end:?}"
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "one of them stalls the engine: {:?}",
        begun.elapsed()
    );
    assert!(
        running
            .ask(running.job("The capital of France is", 3))
            .0
            .contains("Paris")
    );
}

#[test]
fn ignoring_the_end_of_an_answer_fills_the_limit() {
    let running = start(&["engine.context = 512"]);
    let prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n";
    let (_, end) = running.ask(Job {
        stop_tokens: Vec::new(),
        prediction: Vec::new(),
        ignore_eos: true,
        ..running.job(prompt, 100)
    });
    let end = end.unwrap();
    assert_eq!(
        (end.reason, end.usage.completion_tokens),
        (Finish::Length, 100)
    );
}

#[test]
fn a_client_that_leaves_during_a_long_prompt_frees_its_sequence_within_two_seconds() {
    let running = start(&["engine = {context = 8192, parallel = 1}"]);
    let prompt = "words and more words ".repeat(1500);
    let mut events = running.engine.submit(running.job(&prompt, 8)).unwrap();
    assert!(matches!(
        events.blocking_recv(),
        Some(Event::Started { .. })
    ));
    drop(events);
    assert!(running.is_idle_within(Duration::from_secs(2)));
    assert!(
        running
            .ask(running.job("The capital of France is", 3))
            .0
            .contains("Paris")
    );
}

#[test]
fn halting_during_a_long_prompt_ends_it_at_once() {
    let running = start(&["engine = {context = 8192, parallel = 1}"]);
    let prompt = "words and more words ".repeat(1500);
    let mut events = running.engine.submit(running.job(&prompt, 8)).unwrap();
    assert!(matches!(
        events.blocking_recv(),
        Some(Event::Started { .. })
    ));
    running.engine.halt();
    let begun = Instant::now();
    assert_eq!(collect(events).1, Err(Failed::Stopped));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn rows_that_llama_cpp_would_abort_on_are_refused() {
    init();
    let config = settings(&["engine = {context = 256, parallel = 2, batch = 64, ubatch = 64}"]);
    let (plan, weights) = load(&model_file(), &config).unwrap();
    let mut llama = Llama::open(weights, &config, &plan).unwrap();
    let row = |token, position, sequence, logits| Row {
        token,
        position,
        sequence,
        logits,
    };
    let refused: [Vec<Row>; 7] = [
        vec![],
        (0..65).map(|at| row(1, at, 0, false)).collect(),
        (0..3).map(|at| row(1, at, 0, true)).collect(),
        vec![row(1, 0, 2, true)],
        vec![row(1, 256, 0, true)],
        vec![row(-1, 0, 0, true)],
        vec![row(1, 5, 0, false), row(1, 9, 0, true)],
    ];
    for rows in refused {
        let outcome = llama.decode(&rows, &|| false);
        assert!(
            matches!(outcome, Err(DecodeError::Refused(_))),
            "{rows:?}: {outcome:?}"
        );
    }
    assert_eq!(llama.decode(&[row(1, 0, 0, false)], &|| false), Ok(()));
    let mut sampler = llama.sampler(&Sampling::default(), None).unwrap();
    assert!(
        llama.sample(&mut sampler, 0, None).is_err(),
        "the row asked for no logits"
    );
    assert!(
        llama.sample(&mut sampler, 7, None).is_err(),
        "there is no such row"
    );
    assert_eq!(llama.decode(&[row(1, 1, 0, true)], &|| false), Ok(()));
    assert!(llama.sample(&mut sampler, 0, None).is_ok());
}

#[test]
fn a_context_that_cannot_be_made_is_an_error() {
    init();
    let mut config = settings(&[]);
    let (plan, weights) = load(&model_file(), &config).unwrap();
    config.kv.v = config::KvType::Q4_0;
    config.flash_attention = config::FlashAttention::Off;
    let error = Llama::open(Arc::clone(&weights), &config, &plan)
        .err()
        .unwrap();
    assert!(
        matches!(&error, LoadError::Context(why) if why.contains("quantized V cache")),
        "{error}"
    );
}

#[test]
fn loading_can_be_cancelled() {
    init();
    let plan = fit::fit(&model_file(), &settings(&[])).unwrap();
    let error = Weights::load(&model_file(), &plan, &mut |_| false)
        .err()
        .unwrap();
    assert!(matches!(error, LoadError::Cancelled), "{error}");
}

/// Small deterministic noise; what matters is that each run tries the same damage.
fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn damaged_model_files_are_errors_or_load_and_never_abort() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    fs::copy(model_file(), &path).unwrap();
    let config = settings(&[]);
    let load = || load(&path, &config);
    let size = fs::metadata(&path).unwrap().len();

    // The header: magic, version, counts, keys, vocabulary; then the tensor table.
    let mut header = vec![0; 4096];
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.read_exact_at(&mut header, 0).unwrap();
    let mut seed = 0x5EED_u64;
    let mut refused = 0;
    for _ in 0..60 {
        let mut damaged = header.clone();
        for _ in 0..=noise(&mut seed) % 3 {
            let at = usize::try_from(noise(&mut seed)).unwrap()
                % if noise(&mut seed).is_multiple_of(2) {
                    64
                } else {
                    4096
                };
            damaged[at] = noise(&mut seed).to_le_bytes()[0];
        }
        file.write_all_at(&damaged, 0).unwrap();
        refused += u32::from(load().is_err());
    }
    assert!(refused > 20, "most damage must be seen: {refused} of 60");

    // What llama.cpp asserts on.
    let key = b"llama.block_count";
    let at = header
        .windows(key.len())
        .position(|window| window == key)
        .unwrap()
        + key.len()
        + 4;
    for layers in [0_u32, 513, u32::MAX] {
        file.write_all_at(&header, 0).unwrap();
        file.write_all_at(&layers.to_le_bytes(), at as u64).unwrap();
        let error = load().err().unwrap().to_string();
        assert!(error.contains("block_count"), "{error}");
    }

    file.write_all_at(&header, 0).unwrap();
    load().unwrap();
    for length in [0, 3, 4, 24, 4096, size / 2, size - 1] {
        file.set_len(length).unwrap();
        let error = load().err().unwrap().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}
