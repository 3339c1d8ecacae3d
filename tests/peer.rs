//! llama-server of the same engine build, beside this one: the same words for the same questions, where both are there.
//!
//! Runs where `LLAMA_SERVER` names the binary; elsewhere there is nothing to compare with.

#[path = "support/server.rs"]
mod server;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
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
    /// `slots`: where it saves sequences.
    fn start(slots: &Path) -> Option<Self> {
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
            .arg("--slot-save-path")
            .arg(slots)
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
    let Some(peer) = Peer::start(slots.path()) else {
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
