//! Guesses change how fast an answer comes, never the answer: by a draft model, by what was said before, right and wrong.

#[path = "support/server.rs"]
mod server;
#[path = "support/synthetic.rs"]
mod synthetic;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use llm_server::{
    config::{self, EngineConfig, Kind, KnownModel},
    engine::{
        self, Adapters, Claimant, Engine, Enough, Event, Finish, Finished, Grammar, Job, Sampling,
        Token, Tuning, Worth,
        constrain::{Body, Constraints, Strictness},
        draft::Wish,
        fit::{self, Files},
        llama::{self, Llama, LoadError, Weights},
        model::{Model, Part, Row, Vocab},
    },
};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

const LONG: Duration = Duration::from_mins(5);

fn init() {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
}

fn small_model() -> PathBuf {
    server::fetch_model();
    let lock = llm_server::lock::Lock::builtin();
    let entry = lock.get(server::MODEL).unwrap();
    llm_server::lock::Store::at(server::models()).path(server::MODEL, entry)
}

fn settings(overrides: &[&str]) -> EngineConfig {
    // One thread: other tests run beside this one.
    let overrides: Vec<_> = overrides
        .iter()
        .chain(&["engine.threads = 1"])
        .map(|text| (*text).to_owned())
        .collect();
    let known = [server::MODEL, "draft"].map(|name| KnownModel {
        name: name.into(),
        trained_context: None,
    });
    config::load(&config::Source::built_in(), &overrides, &known)
        .unwrap()
        .engine
}

struct Running {
    engine: Engine,
    weights: Arc<Weights>,
}

/// An engine that guesses whenever it can, whether that pays on this machine or not.
fn start(model: &Path, draft: Option<&Path>, overrides: &[&str]) -> Running {
    init();
    let drafts = draft.map(|_| "engine.speculate.draft = \"draft\"");
    let config = settings(&[overrides, drafts.as_slice()].concat());
    let files = Files {
        draft,
        ..Files::alone(model)
    };
    let plan = fit::fit_all(Kind::Auto, files, &config).unwrap();
    let weights = Weights::load(model, &plan, &mut |_| true).unwrap();
    let (shared, draft) = (Arc::clone(&weights), draft.map(Path::to_owned));
    let tuning = Tuning {
        queue: 64,
        lookup: config.speculate.ngram,
        worth: Worth::Assumed,
        most_guesses: 4,
        ..Tuning::default()
    };
    let build = move || {
        let llama = Llama::open(shared, &config, &plan)?;
        let Some((file, plan)) = draft.zip(plan.draft) else {
            return Ok::<_, LoadError>(llama);
        };
        let (companion, _) = llama::companion(&file, &config, &plan)?;
        Ok(llama.with_drafter(Box::new(companion)))
    };
    let (engine, _thread) = engine::start(tuning, build).unwrap();
    Running { engine, weights }
}

impl Running {
    fn job(&self, prompt: &str, max_tokens: u32, temperature: f32) -> Job {
        Job {
            prompt: self.weights.tokenize(prompt, true, true),
            media: Vec::new(),
            max_tokens,
            shift: None,
            forgotten: 0,
            score_prompt: false,
            min_tokens: 0,
            adapters: Adapters::default(),
            sampling: Sampling {
                temperature,
                seed: 7,
                ..Sampling::default()
            },
            grammar: None,
            stop: Vec::new(),
            enough: Enough::default(),
            visible: Vec::new(),
            stop_tokens: Vec::new(),
            prediction: Vec::new(),
            ignore_eos: true,
            // They tell the tokens, and are part of the answer.
            logprobs: Some(1),
            tenant: Some(0),
            claimant: Claimant::default(),
            queue_wait: LONG,
            deadline: LONG,
        }
    }

    fn ask(&self, job: Job) -> (Vec<Token>, Finished) {
        collect(self.engine.submit(job).unwrap())
    }

    fn ask_all(
        &self,
        prompts: &[String],
        tokens: u32,
        temperature: f32,
    ) -> Vec<(Vec<Token>, Finished)> {
        let submit = |prompt: &String| self.engine.submit(self.job(prompt, tokens, temperature));
        let running: Vec<_> = prompts.iter().map(submit).collect();
        running
            .into_iter()
            .map(|events| collect(events.unwrap()))
            .collect()
    }
}

fn collect(mut events: UnboundedReceiver<Event>) -> (Vec<Token>, Finished) {
    let mut tokens = Vec::new();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Started { .. } | Event::Prompt(_) => {}
            Event::Text(piece) => tokens.extend(piece.tokens.iter().map(|scored| scored.token)),
            Event::End(end) => return (tokens, end.unwrap()),
        }
    }
    panic!("a job must end");
}

/// Guesses that were made, and the part of them that came true.
fn guesses<'a>(ends: impl IntoIterator<Item = &'a Finished>) -> (u32, f64) {
    let (mut made, mut accepted) = (0, 0);
    for end in ends {
        accepted += end.usage.accepted_tokens;
        made += end.usage.accepted_tokens + end.usage.rejected_tokens;
    }
    (made, f64::from(accepted) / f64::from(made.max(1)))
}

fn prompts(count: usize) -> Vec<String> {
    let starts = [
        "The capital of France is",
        "Once upon a time in a small town",
        "To bake bread you need",
        "1, 2, 3, 4, 5,",
    ];
    let prompt = |at: usize| format!("{} {}", at / starts.len(), starts[at % starts.len()]);
    (0..count).map(prompt).collect()
}

#[test]
fn a_model_that_drafts_for_itself_is_nearly_always_right_and_says_what_it_says_alone() {
    let model = small_model();
    let shape = "engine = {context = 512, parallel = 2}";
    let plain = start(&model, None, &[shape]);
    let drafted = start(&model, Some(&model), &[shape]);
    for temperature in [0.0, 0.8] {
        let alone: Vec<_> = prompts(2)
            .iter()
            .map(|prompt| plain.ask(plain.job(prompt, 24, temperature)))
            .collect();
        // Two sequences and four jobs: they run beside each other, and sequences change hands.
        let together = drafted.ask_all(&[prompts(2), prompts(2)].concat(), 24, temperature);
        for (at, (tokens, end)) in together.iter().enumerate() {
            assert_eq!(*tokens, alone[at % 2].0, "{temperature} {at}");
            assert_eq!(end.usage.completion_tokens, 24);
        }
        let (made, right) = guesses(together.iter().map(|(_, end)| end));
        println!("temperature {temperature}: {made} guesses, {right:.3} of them right");
        assert!(made > 8, "{made}");
        let least = if temperature > 0.0 { 0.3 } else { 0.95 };
        assert!(right > least, "{right}");
    }
    assert_eq!(guesses([&plain.ask(plain.job("a", 8, 0.0)).1]).0, 0);
}

#[test]
fn a_draft_model_that_knows_nothing_changes_nothing() {
    let (model, folder) = (small_model(), tempfile::tempdir().unwrap());
    let tokenizer = model.to_str().unwrap();
    let other = synthetic::generate(
        folder.path(),
        "qwen3-tiny",
        &[
            "--tokenizer",
            tokenizer,
            "--vocab",
            "49152",
            "--logit-scale",
            "30",
        ],
    );
    let shape = "engine = {context = 512, parallel = 2}";
    let plain = start(&model, None, &[shape]);
    let drafted = start(&model, Some(&other), &[shape]);
    let alone = plain.ask_all(&prompts(2), 32, 0.0);
    let together = drafted.ask_all(&prompts(2), 32, 0.0);
    for ((expected, _), (tokens, _)) in alone.iter().zip(&together) {
        assert_eq!(tokens, expected);
    }
    let (made, right) = guesses(together.iter().map(|(_, end)| end));
    println!("{made} guesses, {right:.3} of them right");
    assert!(made > 0 && right < 0.1, "{made} {right}");
}

#[test]
fn a_models_recurrent_states_come_back_from_guesses_that_were_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let model = synthetic::generate(folder.path(), "qwen35moe-tiny", &[]);
    let shape = "engine = {context = 512, parallel = 3}";
    let plain = start(&model, None, &[shape]);
    let guessing = start(&model, None, &[shape, "engine.speculate.ngram = true"]);
    let expected = plain.ask_all(&prompts(3), 60, 0.0);
    // What will be said, with something else in it at every seventh place.
    let predicted = |tokens: &[Token]| -> Vec<Token> {
        let wrong = |(at, token): (usize, &Token)| if at % 7 == 6 { 5 } else { *token };
        tokens.iter().enumerate().map(wrong).collect()
    };
    for round in 0..2 {
        let jobs: Vec<_> = prompts(3)
            .iter()
            .zip(&expected)
            .map(|(prompt, (tokens, _))| Job {
                prediction: predicted(tokens),
                ..guessing.job(prompt, 60, 0.0)
            })
            .collect();
        let running: Vec<_> = jobs
            .into_iter()
            .map(|job| guessing.engine.submit(job).unwrap())
            .collect();
        let answers: Vec<_> = running.into_iter().map(collect).collect();
        for ((tokens, end), (wanted, _)) in answers.iter().zip(&expected) {
            assert_eq!(tokens, wanted, "round {round}");
            let usage = end.usage;
            assert!(
                usage.accepted_tokens > 10 && usage.rejected_tokens > 3,
                "{usage:?}"
            );
        }
    }
    // The sequence is taken up where it ended, behind guesses that were taken back.
    let whole = |running: &Running| {
        let first = running.job(&prompts(1)[0], 60, 0.0);
        let (said, _) = running.ask(Job {
            prediction: predicted(&expected[0].0),
            ..first.clone()
        });
        let mut next = first;
        next.prompt.extend(&said);
        next.prompt.extend([7, 8, 9]);
        running.ask(next)
    };
    let (fresh, again) = (whole(&plain), whole(&guessing));
    assert_eq!(again.0, fresh.0);
    assert!(again.1.usage.cached_tokens > 60, "{:?}", again.1.usage);
}

#[test]
fn a_draft_model_guesses_for_one_with_recurrent_layers() {
    let folder = tempfile::tempdir().unwrap();
    let model = synthetic::generate(folder.path(), "qwen35moe-tiny", &[]);
    let draft = synthetic::generate(folder.path(), "qwen3-tiny", &["--logit-scale", "30"]);
    let shape = "engine = {context = 512, parallel = 2}";
    let plain = start(&model, None, &[shape]);
    let drafted = start(&model, Some(&draft), &[shape]);
    let expected = plain.ask_all(&prompts(4), 40, 0.0);
    let answers = drafted.ask_all(&prompts(4), 40, 0.0);
    for ((wanted, _), (tokens, _)) in expected.iter().zip(&answers) {
        assert_eq!(tokens, wanted);
    }
    assert!(guesses(answers.iter().map(|(_, end)| end)).0 > 0);
}

#[test]
fn guesses_keep_to_constraints_and_stop_strings() {
    let model = small_model();
    let shape = "engine = {context = 512, parallel = 2}";
    let plain = start(&model, None, &[shape]);
    let drafted = start(&model, Some(&model), &[shape]);
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "mood": {"enum": ["good", "bad"]}},
        "required": ["name", "mood"], "additionalProperties": false
    });
    let vocab: Arc<dyn Vocab> = Arc::clone(&plain.weights) as _;
    let body = Body::Json {
        schema,
        strictness: Strictness::Strict,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let constraints = Constraints::new(vocab);
    let constraint = runtime.block_on(constraints.compile(body.into())).unwrap();
    let said = |running: &Running, job: Job| {
        let mut events = running.engine.submit(job).unwrap();
        let mut text = String::new();
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Started { .. } | Event::Prompt(_) => {}
                Event::Text(piece) => text.push_str(&piece.text),
                Event::End(end) => return (text, end.unwrap()),
            }
        }
        panic!("a job must end");
    };
    let constrained = |running: &Running| Job {
        grammar: Some(Grammar::Guide(Arc::clone(&constraint))),
        logprobs: None,
        ignore_eos: false,
        ..running.job("A person as JSON:\n", 100, 0.0)
    };
    let (text, end) = said(&drafted, constrained(&drafted));
    assert_eq!(text, said(&plain, constrained(&plain)).0);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        ["good", "bad"].contains(&value["mood"].as_str().unwrap()),
        "{text}"
    );
    println!("{text} {:?}", end.usage);

    let counting = |running: &Running| Job {
        stop: vec!["7,".into()],
        ..running.job("1, 2, 3, 4,", 60, 0.0)
    };
    let (text, end) = said(&drafted, counting(&drafted));
    assert_eq!(text, said(&plain, counting(&plain)).0);
    assert!(
        matches!(end.reason, Finish::StopString(_)),
        "{text:?} {:?}",
        end.reason
    );
    assert!(end.usage.accepted_tokens > 0);
}

/// A model whose answers hardly depend on its layers, and whose prediction layer goes on from the token or from the state.
fn predicting(folder: &Path, reads: &str) -> PathBuf {
    let options = [
        "--mtp",
        "--mtp-reads",
        reads,
        "--gain",
        "0.01",
        "--logit-scale",
        "40",
    ];
    synthetic::generate(folder, "qwen35moe-tiny", &options)
}

/// Without an engine around it.
fn predicting_from_states() -> Llama {
    init();
    let folder = tempfile::tempdir().unwrap();
    let model = predicting(folder.path(), "state");
    let config = settings(&["engine = {context = 512, parallel = 2, speculate.mtp = true}"]);
    let plan = fit::fit(&model, &config).unwrap();
    let weights = Weights::load(&model, &plan, &mut |_| true).unwrap();
    Llama::open(weights, &config, &plan).unwrap()
}

#[test]
fn a_models_own_prediction_layers_guess_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = predicting(folder.path(), "token");
    let shape = "engine = {context = 512, parallel = 3}";
    let plain = start(&model, None, &[shape]);
    let drafted = start(&model, None, &[shape, "engine.speculate.mtp = true"]);
    for temperature in [0.0, 0.8] {
        let expected = plain.ask_all(&prompts(3), 48, temperature);
        let answers = drafted.ask_all(&[prompts(3), prompts(3)].concat(), 48, temperature);
        for (at, (tokens, _)) in answers.iter().enumerate() {
            assert_eq!(*tokens, expected[at % 3].0, "{temperature} {at}");
        }
        let (made, right) = guesses(answers.iter().map(|(_, end)| end));
        println!("temperature {temperature}: {made} guesses, {right:.3} of them right");
        assert!(made > 100 && right > 0.5, "{made} {right}");
    }
}

#[test]
fn what_prediction_layers_know_is_kept_and_copied_with_the_sequence() {
    let mut llama = predicting_from_states();
    let rows = |sequence: u32, tokens: &[Token], first: u32| -> Vec<Row> {
        let row = |(position, &token): (u32, &Token)| Row {
            token,
            position,
            sequence,
            logits: position == first + u32::try_from(tokens.len()).unwrap() - 1,
        };
        (first..).zip(tokens).map(row).collect()
    };
    let mut known = vec![1000, 1001, 1002, 1003];
    llama.decode(&rows(0, &known, 0), &|| false).unwrap();
    known.push(llama.likeliest(3).unwrap().0);
    let guess = |llama: &mut Llama, sequence: u32| {
        let wish = Wish {
            sequence,
            tokens: &known,
        };
        let guessed = llama
            .drafter()
            .unwrap()
            .guess(&[wish], 1, LONG, &|| false)
            .unwrap();
        guessed[0].tokens.clone()
    };
    let expected = guess(&mut llama, 0);
    assert_eq!(expected.len(), 1);
    let (whole, rest) = (
        llama.save(0, Part::Whole).unwrap(),
        llama.save(0, Part::Rest).unwrap(),
    );
    assert!(llama.restore(1, Part::Whole, &whole));
    assert_eq!(guess(&mut llama, 1), expected);
    // Gone on, further than states are remembered, and brought back to the checkpoint.
    let more: Vec<Token> = (0..200).collect();
    llama.decode(&rows(0, &more, 4), &|| false).unwrap();
    assert!(llama.restore(0, Part::Rest, &rest) && llama.truncate(0, 4));
    assert_eq!(guess(&mut llama, 0), expected);
}

#[test]
fn prediction_layers_go_on_from_the_state_of_the_token_before() {
    let mut llama = predicting_from_states();
    let row = |sequence, position, token| Row {
        token,
        position,
        sequence,
        logits: true,
    };
    // What the state says is the next token: the layer repeats it, if it is given that very state.
    let mut said = [vec![1000], vec![2000]];
    for position in 0..6 {
        let rows = [0, 1]
            .map(|sequence| row(sequence, position, *said[sequence as usize].last().unwrap()));
        llama.decode(&rows, &|| false).unwrap();
        for (sequence, tokens) in said.iter_mut().enumerate() {
            tokens.push(llama.likeliest(sequence).unwrap().0);
        }
        let wishes = [0, 1].map(|sequence| Wish {
            sequence,
            tokens: &said[sequence as usize],
        });
        let guessed = llama
            .drafter()
            .unwrap()
            .guess(&wishes, 1, LONG, &|| false)
            .unwrap();
        for (tokens, guesses) in said.iter().zip(guessed) {
            assert_eq!(
                guesses.tokens,
                tokens[tokens.len() - 1..],
                "after {position}"
            );
        }
    }
    // Wrong guesses are computed and taken back: what follows goes on from the state before them.
    let known = said[0].len() - 1;
    let last = said[0][known];
    let at = u32::try_from(known).unwrap();
    let rows = [row(0, at, last), row(0, at + 1, 5), row(0, at + 2, 6)];
    llama.decode(&rows, &|| false).unwrap();
    said[0].push(llama.likeliest(0).unwrap().0);
    assert!(llama.truncate(0, at + 1));
    let wish = Wish {
        sequence: 0,
        tokens: &said[0],
    };
    let guessed = llama
        .drafter()
        .unwrap()
        .guess(&[wish], 1, LONG, &|| false)
        .unwrap();
    assert_eq!(guessed[0].tokens, said[0][known + 1..]);
}

#[test]
fn a_copy_of_a_sequence_whose_guesses_were_taken_back_is_of_what_is_left() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let model = predicting(folder.path(), "token");
    for mtp in ["false", "true"] {
        let mtp = format!("engine.speculate = {{ngram = true, mtp = {mtp}}}");
        let config = settings(&["engine = {context = 256, parallel = 3}", &mtp]);
        let plan = fit::fit(&model, &config).unwrap();
        let weights = Weights::load(&model, &plan, &mut |_| true).unwrap();
        let mut llama = Llama::open(weights, &config, &plan).unwrap();
        let row = |sequence, position, token| Row {
            token,
            position,
            sequence,
            logits: true,
        };
        let known: Vec<_> = (0..200).map(|at| row(0, at, 1000)).collect();
        let known: Vec<_> = known
            .iter()
            .map(|row| Row {
                logits: false,
                ..*row
            })
            .collect();
        llama.decode(&known, &|| false).unwrap();
        let with_guesses = [row(0, 200, 1001), row(0, 201, 5), row(0, 202, 6)];
        llama.decode(&with_guesses, &|| false).unwrap();
        assert!(llama.truncate(0, 201));
        // On the device or by way of host memory, as the engine does it.
        if !llama.copy(0, 1, 201) {
            let state = llama.save(0, Part::Whole).unwrap();
            assert!(llama.restore(1, Part::Whole, &state));
        }
        llama.decode(&[row(0, 201, 7)], &|| false).unwrap();
        let own = llama.likeliest(0);
        // Nothing was taken back now: this one is made on the device.
        assert!(llama.copy(0, 2, 202));
        llama.decode(&[row(1, 201, 7)], &|| false).unwrap();
        assert_eq!(llama.likeliest(0), own, "{mtp}");
        let next = own.unwrap().0;
        llama.decode(&[row(0, 202, next)], &|| false).unwrap();
        let own = llama.likeliest(0);
        llama.decode(&[row(2, 202, next)], &|| false).unwrap();
        assert_eq!(llama.likeliest(0), own, "{mtp}");
    }
}

#[test]
fn states_to_go_back_to_are_kept_only_where_somebody_guesses() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let model = synthetic::generate(folder.path(), "qwen35moe-tiny", &[]);
    let open = |setting: &str| {
        let config = settings(&["engine = {context = 512, parallel = 2}", setting]);
        let plan = fit::fit(&model, &config).unwrap();
        let weights = Weights::load(&model, &plan, &mut |_| true).unwrap();
        let llama = Llama::open(weights, &config, &plan).unwrap();
        let state = plan.devices.last().unwrap().kv.state;
        (llama.takes_back(), state)
    };
    let (none, alone) = open("engine.speculate.ngram = false");
    let (some, with) = open("engine.speculate = {ngram = true, most = 6}");
    assert_eq!((none, some), (0, 6));
    assert_eq!(with, alone * 7);
    assert_eq!(
        open("engine = {speculate.ngram = true, reproducible = true}").0,
        0
    );
}
