//! Encoders with real models: neighbours do not matter, long texts, refusals, cancelling, plans, and the server.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/server.rs"]
mod server;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use encoders::model;
use llm_server::{
    config::{self, EngineConfig, Kind, KnownModel},
    engine::{
        Busy, Token,
        embed::{self, Encoded, Encoder as _, Engine, Job, Output, Refused, unit},
        fit::{self, Plan},
        llama::{self, Encoder, Weights},
        model::{DecodeError, Vocab},
        task::Pooling,
    },
};
use serde_json::{Value, json};
use server::Server;

const LONG: Duration = Duration::from_mins(5);

fn chat_model() -> PathBuf {
    server::fetch_model();
    let lock = llm_server::lock::Lock::builtin();
    let entry = lock.get(server::MODEL).unwrap();
    llm_server::lock::Store::at(server::models()).path(server::MODEL, entry)
}

fn settings(overrides: &[&str]) -> EngineConfig {
    let overrides: Vec<_> = overrides
        .iter()
        // One thread: other tests run beside this one.
        .chain(&["engine.threads = 1"])
        .map(|text| (*text).to_owned())
        .collect();
    let known = KnownModel {
        name: server::MODEL.into(),
        trained_context: None,
    };
    config::load(&config::Source::built_in(), &overrides, &[known])
        .unwrap()
        .engine
}

fn open(path: &Path, kind: Kind, overrides: &[&str]) -> (Encoder, Arc<Weights>, Plan) {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
    let config = settings(overrides);
    let plan = fit::fit_as(kind, path, &config).unwrap();
    let weights = Weights::load(path, &plan, &mut |_| true).unwrap();
    let encoder = Encoder::open(Arc::clone(&weights), &config, &plan).unwrap();
    (encoder, weights, plan)
}

struct Running {
    engine: Engine,
    weights: Arc<Weights>,
}

fn start(path: &Path, kind: Kind, overrides: &[&str]) -> Running {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
    let config = settings(overrides);
    let plan = fit::fit_as(kind, path, &config).unwrap();
    let weights = Weights::load(path, &plan, &mut |_| true).unwrap();
    let own = Arc::clone(&weights);
    let (engine, _thread) = embed::start(64, move || Encoder::open(own, &config, &plan)).unwrap();
    Running { engine, weights }
}

impl Running {
    fn tokens(&self, texts: &[&str]) -> Vec<Vec<Token>> {
        let tokens = |text: &&str| self.weights.tokenize(text, true, true);
        texts.iter().map(tokens).collect()
    }

    fn job(&self, texts: &[&str]) -> Job {
        Job {
            texts: self.tokens(texts),
            queue_wait: LONG,
            deadline: LONG,
        }
    }

    fn read(&self, job: Job) -> Encoded {
        let end = self.engine.submit(job).unwrap();
        end.blocking_recv().unwrap().unwrap()
    }

    fn vectors(&self, texts: &[&str]) -> Vec<Vec<f32>> {
        let outputs = self.read(self.job(texts)).outputs;
        outputs.into_iter().map(pooled).collect()
    }
}

fn pooled(output: Output) -> Vec<f32> {
    match output {
        Output::Pooled(vector) => vector,
        Output::Tokens(_) => panic!("the model pools"),
    }
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let (one, other) = (unit(one.to_vec()), unit(other.to_vec()));
    one.iter().zip(&other).map(|(a, b)| a * b).sum()
}

const TEXTS: [&str; 8] = [
    "A cat sits on the mat.",
    "A kitten rests on a rug.",
    "The stock market fell sharply on Monday after the central bank raised its rates.",
    "Shares dropped when interest went up.",
    "x",
    "How do I bake bread at home without an oven that gets very hot?",
    "Quantum computers factor numbers.",
    "東京は日本の首都です。",
];

#[test]
fn a_vector_is_the_same_alone_and_among_sixty_others() {
    let running = start(&model("minilm"), Kind::Auto, &["engine.context = 512"]);
    let alone: Vec<_> = TEXTS
        .iter()
        .map(|text| running.vectors(&[text]).remove(0))
        .collect();
    let many: Vec<&str> = TEXTS.iter().copied().cycle().take(64).collect();
    let together = running.vectors(&many);
    assert_eq!(together.len(), 64);
    for (at, vector) in together.iter().enumerate() {
        assert_eq!(vector.len(), 384);
        let own = &alone[at % TEXTS.len()];
        assert!(cosine(vector, own) > 0.9999, "text {at}");
        let far = vector.iter().zip(own).map(|(a, b)| (a - b).abs());
        assert!(far.fold(0.0, f32::max) < 5e-3, "text {at}");
    }
}

#[test]
fn related_sentences_are_closer_than_unrelated_ones() {
    let running = start(&model("minilm"), Kind::Auto, &["engine.context = 512"]);
    let v = running.vectors(&TEXTS);
    let (cats, shares) = (cosine(&v[0], &v[1]), cosine(&v[2], &v[3]));
    let across = cosine(&v[0], &v[2]).max(cosine(&v[1], &v[3]));
    assert!(cats > 0.5 && shares > 0.4, "{cats} {shares}");
    assert!(across < 0.2, "{across}");
    // What sentence-transformers gives for this text, first to fifth.
    let hello = unit(running.vectors(&["hello"]).remove(0));
    let known = [-0.0628, 0.0549, 0.0521, 0.0858, -0.0828];
    for (ours, theirs) in hello.iter().zip(known) {
        assert!((ours - theirs).abs() < 1e-3, "{ours} {theirs}");
    }
}

#[test]
fn reproducible_mode_gives_the_same_bits_alone_and_among_others() {
    let running = start(
        &model("minilm"),
        Kind::Auto,
        &["engine = {context = 512, reproducible = true}"],
    );
    let together = running.vectors(&TEXTS);
    for (text, vector) in TEXTS.iter().zip(together) {
        assert_eq!(running.vectors(&[text]).remove(0), vector);
    }
}

#[test]
fn texts_longer_than_can_be_read_are_refused_with_the_setting_that_bounds_them() {
    let model = model("minilm");
    let facts = |settings: &[&str]| {
        let facts = open(&model, Kind::Auto, settings).0.facts();
        (facts.longest, facts.limit)
    };
    assert_eq!(facts(&["engine.context = 512"]), (512, None));
    let small = ["engine = {context = 512, ubatch = 64}"];
    assert_eq!(facts(&small), (64, Some("engine.ubatch")));
    assert_eq!(
        facts(&["engine.context = 256"]),
        (256, Some("engine.context"))
    );
    // Positions that the model's table does not have.
    let beyond = ["engine = {context = 1024, ubatch = 1024, beyond_trained_context = true}"];
    assert_eq!(facts(&beyond), (512, None));

    let running = start(&model, Kind::Auto, &small);
    let long = "word ".repeat(200);
    let refused = running.engine.submit(running.job(&["a", &long]));
    assert!(matches!(
        refused,
        Err(Refused::TooLong {
            text: 1,
            longest: 64,
            ..
        })
    ));
    let full = Job {
        texts: vec![vec![2000; 64]],
        ..running.job(&[])
    };
    assert_eq!(running.read(full).outputs.len(), 1);
}

#[test]
fn texts_that_llama_cpp_would_abort_on_are_refused() {
    let overrides = ["engine = {context = 512, ubatch = 64}"];
    let (mut encoder, ..) = open(&model("minilm"), Kind::Auto, &overrides);
    let (long, full) = (vec![1; 65], vec![1; 64]);
    let refused: [&[&[Token]]; 5] = [&[], &[&[]], &[&long], &[&full, &[1]], &[&[1][..]; 65]];
    for texts in refused {
        let outcome = encoder.encode(texts, &|| false);
        assert!(
            matches!(outcome, Err(DecodeError::Refused(_))),
            "{texts:?}: {outcome:?}"
        );
    }
    assert!(matches!(
        encoder.encode(&[&[-1]], &|| false),
        Err(DecodeError::Refused(_))
    ));
    assert!(encoder.encode(&[&full], &|| false).is_ok());
    assert_eq!(
        encoder.encode(&[&full], &|| true),
        Err(DecodeError::Abandoned)
    );
    assert!(encoder.encode(&[&[1, 2], &[3]], &|| false).is_ok());
    encoder.reset().unwrap();
    assert!(encoder.encode(&[&full], &|| false).is_ok());
}

#[test]
fn a_list_that_nobody_waits_for_any_more_ends_within_two_seconds() {
    let running = start(&model("minilm"), Kind::Auto, &["engine.context = 512"]);
    let long = "words and more words ".repeat(100);
    let many = running.job(&[long.as_str(); 200]);
    let end = running.engine.submit(many).unwrap();
    while running.engine.busy().running == 0 {
        std::thread::yield_now();
    }
    drop(end);
    let begun = Instant::now();
    while running.engine.busy() != Busy::default() {
        assert!(begun.elapsed() < Duration::from_secs(2));
        std::thread::yield_now();
    }
    assert_eq!(running.vectors(&["and then"]).len(), 1);
}

#[test]
fn a_single_text_is_answered_long_before_a_list_that_came_first() {
    let running = start(&model("minilm"), Kind::Auto, &["engine.context = 512"]);
    let mut list = running
        .engine
        .submit(running.job(&["some words to read"; 1000]))
        .unwrap();
    while running.engine.busy().running == 0 {
        std::thread::yield_now();
    }
    running.vectors(&["a question"]);
    assert!(list.try_recv().is_err(), "the list is not through yet");
    assert_eq!(list.blocking_recv().unwrap().unwrap().outputs.len(), 1000);
}

#[test]
fn a_chat_models_last_vector_is_the_same_however_its_text_is_cut_into_ubatches() {
    let text = "The river runs past the old mill and on to the sea. ".repeat(12);
    let vector = |settings: &[&str]| {
        let running = start(&chat_model(), Kind::Embedding, settings);
        let facts = running.engine.facts();
        assert_eq!((facts.pooling, facts.longest), (Pooling::Last, 1024));
        let beside = running.vectors(&["beside", &text, "others"]).remove(1);
        let alone = running.vectors(&[&text]).remove(0);
        assert!(cosine(&alone, &beside) > 0.999);
        alone
    };
    let whole = vector(&["engine.context = 1024"]);
    let cut = vector(&["engine = {context = 1024, ubatch = 32}"]);
    assert!(cosine(&whole, &cut) > 0.999, "{}", cosine(&whole, &cut));
}

#[test]
fn without_pooling_every_token_has_a_vector_and_their_mean_is_the_pooled_one() {
    let model = model("minilm");
    let tokens = start(
        &model,
        Kind::Auto,
        &["engine = {context = 512, pooling = 'none}"],
    );
    let mean = start(&model, Kind::Auto, &["engine.context = 512"]);
    let text = TEXTS[0];
    let count = tokens.tokens(&[text])[0].len();
    let [Output::Tokens(vectors)] = &tokens.read(tokens.job(&[text])).outputs[..] else {
        panic!("a vector for each token");
    };
    assert_eq!(vectors.len(), count);
    let sum = (0..384).map(|at| vectors.iter().map(|vector| vector[at]).sum::<f32>());
    let sum: Vec<f32> = sum.collect();
    assert!(cosine(&sum, &mean.vectors(&[text])[0]) > 0.9999);
}

#[test]
fn a_plan_for_an_encoder_agrees_with_what_is_allocated_within_two_percent() {
    let models = [
        (model("minilm"), Kind::Auto),
        (model("reranker"), Kind::Auto),
        (chat_model(), Kind::Embedding),
    ];
    for (path, kind) in &models {
        for shape in [
            "engine = {context = 256, load = 'none}",
            "engine = {context = 256, ubatch = 64, load = 'none, flash_attention = 'off}",
        ] {
            let (encoder, _, plan) = open(path, *kind, &[shape]);
            let host = plan.devices.last().unwrap();
            let planned = [host.weights.total(), host.kv.total(), host.compute];
            let real = encoder.buffers().iter().fold([0; 3], |sum, buffer| {
                [
                    sum[0] + buffer.weights,
                    sum[1] + buffer.cache,
                    sum[2] + buffer.compute,
                ]
            });
            for (planned, real) in planned.into_iter().zip(real) {
                assert!(
                    planned.abs_diff(real) * 50 <= real,
                    "{} {shape}: planned {planned}, real {real}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn scores_of_a_reranker_are_the_same_alone_and_together() {
    let running = start(&model("reranker"), Kind::Auto, &["engine.context = 256"]);
    assert_eq!(running.engine.facts().pooling, Pooling::Rank);
    assert_eq!(running.engine.facts().width, 1);
    let pairing = running.weights.pairing();
    let documents: Vec<String> = ["one", "another", "a third"].map(str::to_owned).into();
    let texts = pairing.texts(&*running.weights, "which", &documents);
    // [CLS] w h i c h [SEP] o n e [SEP]
    assert_eq!(texts[0].len(), 11);
    assert_eq!((texts[0][0], texts[0][6], texts[0][10]), (2, 3, 3));
    let scores = |texts: Vec<Vec<Token>>| {
        let job = Job {
            texts,
            ..running.job(&[])
        };
        let outputs = running.read(job).outputs.into_iter();
        outputs.map(|output| pooled(output)[0]).collect::<Vec<_>>()
    };
    let together = scores(texts.clone());
    for (text, score) in texts.into_iter().zip(&together) {
        assert!((scores(vec![text])[0] - score).abs() < 1e-4);
    }
    let near = |one: usize, other: usize| (together[one] - together[other]).abs() < 1e-3;
    assert!(!near(0, 1) && !near(1, 2), "{together:?}");
}

/// A server of a model file outside the lock.
fn serve(file: &Path, settings: &[&str]) -> Server {
    Server::start_file(file, settings)
}

fn answer(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = server.post(path, &body.to_string()).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

#[test]
fn the_server_embeds_with_an_embedding_model() {
    let server = serve(&model("minilm"), &["engine.context = 512"]);
    let (status, body) = answer(&server, "/v1/embeddings", &json!({"input": TEXTS}));
    assert_eq!(status, 200, "{body}");
    let data = body["data"].as_array().unwrap();
    assert_eq!(data.len(), TEXTS.len());
    for one in data {
        let vector = one["embedding"].as_array().unwrap().iter();
        let length: f64 = vector.map(|x| x.as_f64().unwrap().powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-4);
    }
    let messages = json!({"messages": [{"role": "user", "content": "hi"}]});
    let (status, body) = answer(&server, "/v1/chat/completions", &messages);
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &json!("unsupported_by_model"))
    );
    let (_, props) = server.get("/props").unwrap();
    let props: Value = serde_json::from_str(&props).unwrap();
    assert_eq!(props["kind"], "embedding");
    assert_eq!(
        props["plan"]["settings"]["task"]["encode"]["pooling"],
        "mean"
    );
}

#[test]
fn the_server_ranks_with_a_reranking_model_and_drains() {
    let mut server = serve(&model("reranker"), &["engine.context = 256"]);
    let body = json!({"query": "which", "documents": ["one", "another", "a third"], "top_n": 2});
    let (status, body) = answer(&server, "/v1/rerank", &body);
    assert_eq!(status, 200, "{body}");
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    let score = |at: usize| results[at]["relevance_score"].as_f64().unwrap();
    assert!(score(0) >= score(1) && score(1) > 0.0 && score(0) < 1.0);
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(20)).success());
}

#[test]
fn a_chat_model_embeds_when_it_is_told_to() {
    let settings = ["engine.context = 512", "model.kind = 'embedding"];
    let server = Server::start(&settings);
    let (status, body) = answer(&server, "/v1/embeddings", &json!({"input": "hello"}));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"][0]["embedding"].as_array().unwrap().len(), 576);
}
