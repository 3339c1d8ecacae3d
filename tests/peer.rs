//! llama-server of the same engine build, beside this one: the same words for the same questions, where both are there.
//!
//! Runs where `LLAMA_SERVER` names the binary; elsewhere there is nothing to compare with.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/server.rs"]
mod server;

use std::{
    env,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use server::Server;

/// Fields of llama-server's that this server does not have, and fields that it has more, by route. What stands here is
/// meant to differ.
const LESS: [&str; 18] = [
    "generation_settings.adaptive_decay",
    "generation_settings.adaptive_target",
    "generation_settings.backend_sampling",
    "generation_settings.chat_format",
    "generation_settings.generation_prompt",
    "generation_settings.grammar_lazy",
    "generation_settings.grammar_triggers",
    "generation_settings.preserved_tokens",
    "generation_settings.reasoning_format",
    "generation_settings.reasoning_in_content",
    "generation_settings.speculative.types",
    // Of /slots.
    "id_task",
    "next_token.has_new_line",
    "params",
    "speculative",
    // Of /v1/models.
    "data.aliases",
    "data.architecture",
    "data.tags",
];
const MORE: [&str; 1] = ["generation_settings.n_indent"];

struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(more: &[OsString]) -> Option<Self> {
        let binary = env::var_os("LLAMA_SERVER")?;
        server::fetch_model();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let model = std::fs::read_dir(server::models()).expect("the folder of models");
        let model = model
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains(server::MODEL));
        let child = Command::new(binary)
            .arg("-m")
            .arg(model.expect("the small model"))
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            // Its threads spin while they wait: more than one starves whatever runs beside it.
            .args(["-c", "1024", "-np", "1", "-t", "1", "--slots"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let peer = Self {
            child: child.expect("llama-server can be started"),
            address,
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while !matches!(peer.ask("GET", "/health", &Value::Null), Some((200, _))) {
            assert!(Instant::now() < deadline, "llama-server did not get ready");
            // Another process: there is nothing to wait on but its answer.
            thread::sleep(Duration::from_millis(50));
        }
        Some(peer)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, body) = server::exchange(self.address, &request).ok()?;
        Some((status, last_object(&body)?))
    }
}

/// The answer; of a stream the last event.
fn last_object(body: &str) -> Option<Value> {
    let mut events = body.lines().filter_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(events.next_back().unwrap_or(body)).ok()
}

/// The paths of all fields, those of list items by the list's.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = [path, name].join(if path.is_empty() { "" } else { "." });
                if !found.contains(&path) {
                    found.push(path.clone());
                }
                fields(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, path, found)),
        _ => {}
    }
}

fn difference(ours: &Value, theirs: &Value) -> Vec<String> {
    let paths = |value: &Value| {
        let mut found = Vec::new();
        fields(value, "", &mut found);
        found
    };
    let (ours, theirs) = (paths(ours), paths(theirs));
    let meant = |path: &String, list: &[&str]| {
        list.iter()
            .any(|known| path == known || path.starts_with(&format!("{known}.")))
    };
    let missing = theirs.iter().filter(|path| !ours.contains(path));
    let missing = missing.filter(|path| !meant(path, &LESS));
    let added = ours.iter().filter(|path| !theirs.contains(path));
    let added = added.filter(|path| !meant(path, &MORE));
    missing
        .map(|path| format!("- {path}"))
        .chain(added.map(|path| format!("+ {path}")))
        .collect()
}

/// What must be equal beside the fields.
const SAID: &[&str] = &[
    "content",
    "tokens_predicted",
    "tokens_evaluated",
    "tokens_cached",
    "stop_type",
    "stopping_word",
    "truncated",
    "has_new_line",
    "prompt",
    "tokens",
];

/// Paths, bodies, and the fields whose values must be equal, too.
fn asked() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let france = |more: Value| {
        let mut body =
            json!({"prompt": "The capital of France is", "n_predict": 6, "temperature": 0});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}]});
    vec![
        (
            "/completion",
            france(json!({"n_probs": 2, "return_tokens": true})),
            SAID,
        ),
        (
            "/completion",
            france(json!({"stop": ["City"], "n_predict": 40})),
            SAID,
        ),
        ("/completion", france(json!({"stream": true})), SAID),
        (
            "/completion",
            france(json!({"prompt": [504, "  capital", 282, " Italy is"]})),
            SAID,
        ),
        (
            "/completion",
            france(json!({"samplers": ["top_k", "temperature"], "repeat_penalty": 1.3})),
            SAID,
        ),
        (
            "/completion",
            france(json!({"n_indent": 4, "n_predict": 40})),
            &["content", "stop_type"],
        ),
        (
            "/completion",
            france(json!({"response_fields": ["content", "timings/prompt_n", "nonsense"]})),
            &["content"],
        ),
        (
            "/completion",
            france(json!({"json_schema": {"type": "boolean"}})),
            &["content"],
        ),
        (
            "/tokenize",
            json!({"content": "Hello wörld 🦀", "with_pieces": true}),
            &["tokens"],
        ),
        (
            "/tokenize",
            json!({"content": ["<|im_start|>", 5, "x"], "add_special": true}),
            &["tokens"],
        ),
        (
            "/detokenize",
            json!({"tokens": [1, 19556, 28, 905]}),
            &["content"],
        ),
        ("/apply-template", chat.clone(), &["prompt"]),
        (
            "/v1/chat/completions/input_tokens",
            chat,
            &["input_tokens", "object"],
        ),
    ]
}

#[test]
fn answers_have_the_fields_and_the_words_of_llama_servers() {
    let slots = tempfile::tempdir().unwrap();
    let Some(peer) = Peer::start(&["--slot-save-path".into(), slots.path().into()]) else {
        eprintln!("LLAMA_SERVER names no binary: nothing compared");
        return;
    };
    let own = tempfile::tempdir().unwrap();
    let setting = format!("cache.slots = {:?}", own.path());
    let server = Server::start(&["engine = {context = 1024, parallel = 1}", &setting]);
    for (path, body, same) in asked() {
        let (status, theirs) = peer.ask("POST", path, &body).expect("an answer");
        assert_eq!(status, 200, "{path} {body}: {theirs}");
        let (status, ours) = server.post(path, &body.to_string()).expect("an answer");
        assert_eq!(status, 200, "{path} {body}: {ours}");
        let ours = last_object(&ours).expect("JSON");
        assert_eq!(difference(&ours, &theirs), [""; 0], "{path} {body}");
        for name in same {
            assert_eq!(ours[name], theirs[name], "{name} of {path} {body}");
        }
        let chosen = |answer: &Value| -> Vec<f64> {
            let tokens = answer["completion_probabilities"].as_array();
            let each = tokens.into_iter().flatten();
            each.map(|token| token["logprob"].as_f64().unwrap())
                .collect()
        };
        for (ours, theirs) in chosen(&ours).into_iter().zip(chosen(&theirs)) {
            assert!(
                (ours - theirs).abs() < 0.01,
                "logprob {ours} is not {theirs}"
            );
        }
    }
    compare_slots(&server, &peer);
    for path in ["/slots", "/lora-adapters", "/v1/models"] {
        let (_, mut theirs) = peer.ask("GET", path, &Value::Null).expect("an answer");
        if let Some(models) = theirs.as_object_mut() {
            // The list once more, as Ollama has it.
            models.remove("models");
        }
        let ours = server.get(path).expect("an answer").1;
        let ours = last_object(&ours).expect("JSON");
        assert_eq!(difference(&ours, &theirs), [""; 0], "{path}");
    }
}

/// A conversation saved, erased, restored and gone on with: the same answers, and as much found again.
fn compare_slots(server: &Server, peer: &Peer) {
    let begun = json!({"prompt": "Once upon a time there was a lighthouse keeper who", "n_predict": 8, "temperature": 0});
    let file = json!({"filename": "keeper.bin"});
    let ask = |path: &str, body: &Value| {
        let (their_status, theirs) = peer.ask("POST", path, body).expect("an answer");
        let (status, ours) = server.post(path, &body.to_string()).expect("an answer");
        let ours = last_object(&ours).expect("JSON");
        assert_eq!(status, their_status, "{path}: {ours} and {theirs}");
        (ours, theirs)
    };
    ask("/completion", &begun);
    for (action, same) in [
        ("save", ["id_slot", "filename", "n_saved"]),
        ("erase", ["id_slot", "n_erased", "n_erased"]),
        ("restore", ["id_slot", "filename", "n_restored"]),
    ] {
        let (ours, theirs) = ask(&format!("/slots/0?action={action}"), &file);
        assert_eq!(difference(&ours, &theirs), [""; 0], "{action}");
        for name in same {
            assert_eq!(ours[name], theirs[name], "{name} of {action}");
        }
    }
    let (ours, theirs) = ask("/completion", &begun);
    assert_eq!(ours["content"], theirs["content"]);
    assert_eq!(ours["timings"]["cache_n"], theirs["timings"]["cache_n"]);
    for (path, body) in [
        ("/slots/x?action=save", &file),
        ("/slots/0?action=dance", &file),
        ("/slots/0?action=save", &json!({"filename": "../up"})),
        ("/slots/0?action=restore", &json!({"filename": "none"})),
    ] {
        ask(path, body);
    }
}

#[test]
fn adapters_do_the_same_to_the_next_token() {
    let adapters = ["one", "two", "deep", "waiting"].map(encoders::adapter);
    let files = adapters.iter().map(|path| path.to_string_lossy());
    let files = files.collect::<Vec<_>>().join(",");
    let more = [
        "--lora".into(),
        files.into(),
        "--lora-init-without-apply".into(),
    ];
    let Some(peer) = Peer::start(&more) else {
        eprintln!("LLAMA_SERVER names no binary: nothing compared");
        return;
    };
    let server = Server::start_adapted(
        &adapters,
        &[
            "engine = {context = 1024, parallel = 1}",
            // In the order of the other server, at the scales that it has not applied.
            r#"model.adapters = [
                {name = "adapter-one", scale = 0}, {name = "adapter-two", scale = 0},
                {name = "adapter-deep", scale = 0}, {name = "adapter-waiting", scale = 0},
            ]"#,
        ],
    );
    let one = |id: u32, scale: f64| json!({"id": id, "scale": scale});
    let sets = [
        vec![one(0, 1.0)],
        vec![one(0, 0.5)],
        vec![one(1, -0.7)],
        vec![one(2, 1.0)],
        vec![one(0, 0.4), one(2, 1.5)],
        // It acts from " Paris" on, if that is there.
        vec![one(3, 1.0)],
        vec![one(0, 0.0)],
    ];
    for prompt in [
        "The capital of France is",
        "In Paris, the river that flows through is the",
    ] {
        let mut said: Vec<f64> = Vec::new();
        for lora in &sets {
            let body = json!({"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 5, "lora": lora});
            let (status, theirs) = peer.ask("POST", "/completion", &body).expect("an answer");
            assert_eq!(status, 200, "{theirs}");
            let (status, ours) = server
                .post("/completion", &body.to_string())
                .expect("an answer");
            assert_eq!(status, 200, "{ours}");
            let ours = last_object(&ours).expect("JSON");
            let top =
                |answer: &Value| answer["completion_probabilities"][0]["top_logprobs"].clone();
            let (ours, theirs) = (top(&ours), top(&theirs));
            for (ours, theirs) in ours
                .as_array()
                .unwrap()
                .iter()
                .zip(theirs.as_array().unwrap())
            {
                assert_eq!(ours["token"], theirs["token"], "{prompt} {lora:?}");
                let (ours, theirs) = (&ours["logprob"], &theirs["logprob"]);
                let apart = ours.as_f64().unwrap() - theirs.as_f64().unwrap();
                assert!(
                    apart.abs() < 0.01,
                    "{ours} is not {theirs}: {prompt} {lora:?}"
                );
            }
            said.push(ours[0]["logprob"].as_f64().unwrap());
        }
        let plain = said.pop().unwrap();
        let changed = said
            .iter()
            .filter(|logprob| (*logprob - plain).abs() > 0.01);
        let waits = usize::from(!prompt.contains(" Paris"));
        assert_eq!(changed.count(), said.len() - waits, "{said:?} {plain}");
    }
    let scales = json!([{"id": 1, "scale": 0.25}]);
    let (_, theirs) = peer
        .ask("POST", "/lora-adapters", &scales)
        .expect("an answer");
    let (_, ours) = server
        .post("/lora-adapters", &scales.to_string())
        .expect("an answer");
    assert_eq!(last_object(&ours), Some(theirs));
    let (_, mut theirs) = peer
        .ask("GET", "/lora-adapters", &Value::Null)
        .expect("an answer");
    for (theirs, path) in theirs.as_array_mut().unwrap().iter_mut().zip(&adapters) {
        // The name in the lock in place of where the file lies.
        theirs["path"] = json!(path.file_stem().unwrap().to_string_lossy());
    }
    let (_, ours) = server.get("/lora-adapters").expect("an answer");
    assert_eq!(last_object(&ours), Some(theirs));
}

#[test]
fn a_full_context_forgets_the_same_and_goes_on_with_the_same_words() {
    let more = ["-c", "256", "--context-shift"].map(OsString::from);
    let Some(peer) = Peer::start(&more) else {
        eprintln!("LLAMA_SERVER names no binary: nothing compared");
        return;
    };
    let server = Server::start(&["engine = {context = 256, parallel = 1, overflow = 'shift}"]);
    for more in [
        json!({"n_keep": 20}),
        json!({"n_keep": -1, "n_discard": 31}),
    ] {
        let mut body = json!({
            "prompt": "A list of words that each begin with the next letter:", "n_predict": 380, "temperature": 0,
            "repeat_penalty": 1.3, "ignore_eos": true, "cache_prompt": false,
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, theirs) = peer.ask("POST", "/completion", &body).expect("an answer");
        assert_eq!(status, 200, "{theirs}");
        let (status, ours) = server
            .post("/completion", &body.to_string())
            .expect("an answer");
        assert_eq!(status, 200, "{ours}");
        let ours = last_object(&ours).expect("JSON");
        for name in [
            "tokens_predicted",
            "tokens_evaluated",
            "truncated",
            "stop_type",
        ] {
            assert_eq!(ours[name], theirs[name], "{name} {more}");
        }
        for name in ["n_keep", "n_discard"] {
            let settings = "generation_settings";
            assert_eq!(
                ours[settings][name], theirs[settings][name],
                "{name} {more}"
            );
        }
        // The last bits may differ, so the words may part at some time; not before the first shift and well after it.
        let text = |answer: &Value| answer["content"].as_str().unwrap().to_owned();
        let (ours, theirs) = (text(&ours), text(&theirs));
        let same = ours
            .bytes()
            .zip(theirs.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        assert!(
            same > 1200 || same == theirs.len(),
            "{same} of {}: {more}\n{ours}\n---\n{theirs}",
            theirs.len()
        );
    }
}
