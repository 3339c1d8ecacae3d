//! Constraints with the real small model: every answer is what was asked for, alone and beside others.

#[path = "support/server.rs"]
mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use llm_server::{
    config::{self, EngineConfig, KnownModel},
    engine::{
        self, Adapters, Claimant, Engine, Enough, Event, Failed, Finish, Finished, Grammar, Job,
        Sampling, Token, Tuning,
        constrain::{Body, Constraint, Constraints, Frame, Part, Source, Strictness},
        fit,
        llama::{self, Llama, Weights},
        model::{Model, Row, Vocab},
    },
};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(5);

struct Loaded {
    config: EngineConfig,
    plan: fit::Plan,
    weights: Arc<Weights>,
    constraints: Arc<Constraints>,
}

fn load(overrides: &[&str]) -> Loaded {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
    server::fetch_model();
    let lock = llm_server::lock::Lock::builtin();
    let entry = lock.get(server::MODEL).unwrap();
    let file = llm_server::lock::Store::at(server::models()).path(server::MODEL, entry);
    let overrides: Vec<_> = ["engine.threads = 1"]
        .iter()
        .chain(overrides)
        .map(|text| (*text).to_owned())
        .collect();
    let known = KnownModel {
        name: server::MODEL.into(),
        trained_context: Some(8192),
    };
    let source = config::Source::built_in();
    let config = config::load(&source, &overrides, &[known]).unwrap().engine;
    let plan = fit::fit(&file, &config).unwrap();
    let weights = Weights::load(&file, &plan, &mut |_| true).unwrap();
    let vocab: Arc<dyn Vocab> = Arc::clone(&weights) as _;
    Loaded {
        constraints: Constraints::new(vocab),
        config,
        plan,
        weights,
    }
}

impl Loaded {
    fn engine(&self) -> Engine {
        let (weights, config, plan) = (
            Arc::clone(&self.weights),
            self.config.clone(),
            self.plan.clone(),
        );
        let tuning = Tuning {
            queue: 64,
            ..Tuning::default()
        };
        let started = engine::start(tuning, move || Llama::open(weights, &config, &plan));
        started.unwrap().0
    }

    fn compile(&self, source: impl Into<Source>) -> Arc<Constraint> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(self.constraints.compile(source.into()))
            .unwrap()
    }

    fn job(&self, prompt: &str, seed: u32, grammar: Grammar) -> Job {
        Job {
            prompt: self.weights.tokenize(prompt, true, true),
            media: Vec::new(),
            max_tokens: 200,
            shift: None,
            forgotten: 0,
            sampling: Sampling {
                seed,
                temperature: if seed == 0 { 0.0 } else { 1.0 },
                ..Sampling::default()
            },
            grammar: Some(grammar),
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
}

fn ask(engine: &Engine, job: Job) -> (String, Result<Finished, Failed>) {
    let mut events = engine.submit(job).unwrap();
    let mut text = String::new();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Started { .. } | Event::Prompt(_) => {}
            Event::Text(piece) => text.push_str(&piece.text),
            Event::End(end) => return (text, end),
        }
    }
    panic!("a job must end");
}

fn strict(schema: Value) -> Body {
    Body::Json {
        schema,
        strictness: Strictness::Strict,
    }
}

/// Nested, with an enumeration, a pattern and bounds.
fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{2}$"},
            "mood": {"enum": ["good", "bad"]},
            "age": {"type": "integer", "minimum": 10, "maximum": 99},
            "pets": {"type": "array", "minItems": 1, "maxItems": 2, "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 10}, "old": {"type": "boolean"}},
                "required": ["name", "old"], "additionalProperties": false
            }}
        },
        "required": ["code", "mood", "age", "pets"], "additionalProperties": false
    })
}

fn check_person(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let code = value["code"].as_str().unwrap().as_bytes();
    assert!(
        code.len() == 5 && code[2] == b'-' && code[0].is_ascii_uppercase(),
        "{text}"
    );
    assert!(
        ["good", "bad"].contains(&value["mood"].as_str().unwrap()),
        "{text}"
    );
    assert!(
        (10..=99).contains(&value["age"].as_i64().unwrap()),
        "{text}"
    );
    assert_eq!(value.as_object().unwrap().len(), 4, "{text}");
    let pets = value["pets"].as_array().unwrap();
    assert!((1..=2).contains(&pets.len()), "{text}");
    for pet in pets {
        assert!(
            pet["name"].as_str().unwrap().chars().count() <= 10,
            "{text}"
        );
        assert!(pet["old"].is_boolean(), "{text}");
    }
}

#[test]
fn eight_answers_at_once_all_follow_their_schema() {
    let loaded = load(&["engine.context = 512", "engine.parallel = 8"]);
    let engine = loaded.engine();
    let began = Instant::now();
    let constraint = loaded.compile(strict(person()));
    println!(
        "first constraint, vocabulary included: {:?}",
        began.elapsed()
    );
    let began = Instant::now();
    for _ in 0..100 {
        drop(constraint.begin());
    }
    println!("an answer begun: {:?}", began.elapsed() / 100);
    let answers: Vec<_> = (0..8)
        .map(|seed| {
            let grammar = Grammar::Guide(Arc::clone(&constraint));
            let (engine, job) = (
                engine.clone(),
                loaded.job("A person as JSON:\n", seed, grammar),
            );
            std::thread::spawn(move || ask(&engine, job))
        })
        .collect();
    for answer in answers {
        let (text, end) = answer.join().unwrap();
        assert_eq!(end.unwrap().reason, Finish::Eos, "{text}");
        check_person(&text);
    }
}

#[test]
fn a_recursive_answer_is_valid_as_far_as_it_goes() {
    let loaded = load(&["engine.context = 512"]);
    let engine = loaded.engine();
    let constraint = loaded.compile(strict(json!({
        "$ref": "#/$defs/boss",
        "$defs": {"boss": {
            "type": "object",
            "properties": {"rank": {"type": "integer", "minimum": 0, "maximum": 3}, "boss": {"anyOf": [{"$ref": "#/$defs/boss"}, {"type": "null"}]}},
            "required": ["rank", "boss"], "additionalProperties": false
        }}
    })));
    let grammar = Grammar::Guide(Arc::clone(&constraint));
    let (text, end) = ask(&engine, loaded.job("A boss as JSON: ", 3, grammar));
    // A small model may go on with bosses until it has no tokens left.
    end.unwrap();
    assert!(text.starts_with("{\"rank\": ") && text.len() > 20, "{text}");
    let mut guide = constraint.begin();
    for token in loaded.weights.tokenize(&text, false, false) {
        assert!(guide.allows(token).unwrap(), "{text}");
        guide.accept(token).unwrap();
    }
}

#[test]
fn regular_expressions_lark_and_choices_end_where_they_are_complete() {
    let loaded = load(&["engine.context = 512"]);
    let engine = loaded.engine();
    let answer = |body: Body, prompt: &str| {
        let grammar = Grammar::Guide(loaded.compile(body));
        let (text, end) = ask(&engine, loaded.job(prompt, 0, grammar));
        assert_eq!(end.unwrap().reason, Finish::Eos, "{text}");
        text
    };
    let text = answer(
        Body::Regex("(Paris|London) is [a-z]{3,8}!".into()),
        "The capital of France is",
    );
    assert!(
        text.starts_with("Paris is ") && text.ends_with('!'),
        "{text}"
    );
    let text = answer(
        Body::Lark("start: \" \" CITY (\",\" CITY)~2\nCITY: \"Oslo\" | \"Rome\"\n".into()),
        "Capitals:",
    );
    assert_eq!(text.split(',').count(), 3, "{text}");
    let text = answer(
        Body::Choice(vec![" Berlin".into(), " Paris".into()]),
        "The capital of France is",
    );
    assert_eq!(text, " Paris");
}

#[test]
fn reasoning_may_come_before_the_answer_and_only_there() {
    let loaded = load(&["engine.context = 512"]);
    let engine = loaded.engine();
    let thought = Part::Optional(vec![
        Part::Mark("<think>".into()),
        Part::Until("</think>".into()),
        Part::Space,
    ]);
    let source = |parts| Source {
        body: strict(
            json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false}),
        ),
        frame: Frame {
            parts,
            begun: String::new(),
        },
    };
    for parts in [
        vec![thought, Part::Answer],
        vec![Part::Mark("<think>\nYes.</think>\n".into()), Part::Answer],
        vec![Part::Answer, Part::Mark("<|im_start|>done".into())],
    ] {
        let told = format!("{parts:?}");
        let grammar = Grammar::Guide(loaded.compile(source(parts)));
        let (text, end) = ask(&engine, loaded.job("Is water wet? JSON: ", 0, grammar));
        assert_eq!(end.unwrap().reason, Finish::Eos, "{told} {text}");
        let json = text
            .rsplit("</think>")
            .next()
            .unwrap()
            .trim_end_matches("done");
        let value: Value =
            serde_json::from_str(json).unwrap_or_else(|why| panic!("{told} {text}: {why}"));
        assert!(value["ok"].is_boolean());
    }
}

#[test]
fn what_is_forced_is_what_would_have_been_chosen() {
    let loaded = load(&["engine.context = 512"]);
    let constraint = loaded.compile(strict(json!({
        "type": "object",
        "properties": {"first_name": {"type": "string", "maxLength": 12}, "is_happy": {"type": "boolean"}},
        "required": ["first_name", "is_happy"], "additionalProperties": false
    })));
    let mut llama = Llama::open(Arc::clone(&loaded.weights), &loaded.config, &loaded.plan).unwrap();
    let prompt = loaded
        .weights
        .tokenize("Ann is happy. As JSON: ", true, true);
    let greedy = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    // With and without the shortcut; the text must be the same.
    let mut answers = Vec::new();
    for most in [0, 64] {
        llama.reset().unwrap();
        let grammar = Grammar::Guide(Arc::clone(&constraint));
        let mut sampler = llama.sampler(&greedy, Some(&grammar)).unwrap();
        let (mut tokens, mut computed) = (prompt.clone(), 0);
        let (mut decodes, mut text) = (0, Vec::new());
        'answer: loop {
            let mut next = llama.forced(&mut sampler, most);
            if next.is_empty() {
                let rows: Vec<Row> = (computed..tokens.len())
                    .map(|at| Row {
                        token: tokens[at],
                        position: u32::try_from(at).unwrap(),
                        sequence: 0,
                        logits: at + 1 == tokens.len(),
                    })
                    .collect();
                llama.decode(&rows, &|| false).unwrap();
                computed = tokens.len();
                decodes += 1;
                next = vec![
                    llama
                        .sample(&mut sampler, rows.len() - 1, None)
                        .unwrap()
                        .token,
                ];
            }
            for token in next {
                if loaded.weights.is_eog(token) {
                    break 'answer;
                }
                loaded.weights.piece(token, false, &mut text);
                tokens.push(token);
            }
        }
        let generated: Vec<Token> = tokens[prompt.len()..].to_vec();
        answers.push((String::from_utf8(text).unwrap(), decodes, generated.len()));
    }
    println!("{answers:?}");
    let [(plain, plain_decodes, _), (forced, forced_decodes, _)] = &answers[..] else {
        unreachable!("two ways")
    };
    let keys = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        (
            value["first_name"].is_string(),
            value["is_happy"].is_boolean(),
        )
    };
    assert_eq!(keys(plain), (true, true), "{plain}");
    assert_eq!(keys(forced), (true, true), "{forced}");
    assert!(
        forced_decodes * 3 < plain_decodes * 2,
        "{forced_decodes} of {plain_decodes} decodes"
    );
}
