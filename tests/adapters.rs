//! LoRA adapters end to end: the real binary and the real small model with random adapters, of which some are wrong.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/server.rs"]
mod server;

use std::{fs, path::PathBuf, thread, time::Duration};

use serde_json::{Value, json};

use server::Server;

const ENGINE: &str = "engine = {context = 1024, parallel = 4, threads = 1}";
/// Where the same bits are expected whatever else runs or is kept.
const BITS: &str =
    "engine = {context = 1024, parallel = 4, threads = 1, ubatch = 64, reproducible = true}";
/// Two adapters that nobody wears unless a request says so, the first with a name of its own.
const BOTH: &str = r#"model.adapters = [
    {name = "adapter-one", scale = 0.5, alias = "poet"}, {name = "adapter-two", scale = 0},
]"#;

fn both() -> Vec<PathBuf> {
    ["one", "two"].map(encoders::adapter).to_vec()
}

fn adapted(engine: &str) -> Server {
    let server = Server::start_adapted(&both(), &[engine, BOTH]);
    scale(&server, &json!([]));
    server
}

fn scale(server: &Server, list: &Value) {
    let (status, text) = server.post("/lora-adapters", &list.to_string()).unwrap();
    assert_eq!((status, text.as_str()), (200, r#"{"success":true}"#));
}

fn ask(server: &Server, path: &str, body: &Value) -> Value {
    let (status, text) = server.post(path, &body.to_string()).unwrap();
    assert_eq!(status, 200, "{text}\n{}", server.read_log());
    serde_json::from_str(&text).unwrap()
}

/// Text and log-probabilities of a greedy answer with these adapters, nothing of which comes from a cache: the last bits
/// depend on how many tokens are computed at once.
fn answer(server: &Server, prompt: &str, lora: &Value) -> (String, Vec<f64>) {
    let body = json!({
        "prompt": prompt, "n_predict": 24, "temperature": 0, "n_probs": 3, "lora": lora, "cache_prompt": false,
    });
    let said = ask(server, "/completion", &body);
    let tokens = said["completion_probabilities"].as_array().unwrap();
    let logprobs = tokens
        .iter()
        .map(|token| token["logprob"].as_f64().unwrap());
    (
        said["content"].as_str().unwrap().to_owned(),
        logprobs.collect(),
    )
}

fn worn(id: u32, scale: f64) -> Value {
    json!([{"id": id, "scale": scale}])
}

const FRANCE: &str = "The capital of France is";

#[test]
fn an_adapter_of_scale_0_is_none_and_one_of_scale_1_is_felt() {
    let plain = answer(&Server::start(&[ENGINE]), FRANCE, &json!([]));
    let server = adapted(ENGINE);
    assert_eq!(answer(&server, FRANCE, &worn(0, 0.0)), plain);
    assert_eq!(answer(&server, FRANCE, &json!([])), plain);
    let (one, half) = (
        answer(&server, FRANCE, &worn(0, 1.0)),
        answer(&server, FRANCE, &worn(0, 0.5)),
    );
    let two = answer(&server, FRANCE, &worn(1, 1.0));
    for (other, another) in [(&one, &plain), (&half, &plain), (&one, &half), (&one, &two)] {
        assert!(
            (other.1[0] - another.1[0]).abs() > 0.01,
            "{other:?} {another:?}"
        );
    }
}

#[test]
fn requests_with_different_adapters_at_once_answer_each_as_alone() {
    let server = adapted(BITS);
    let sets = [worn(0, 1.0), worn(0, 0.5), worn(1, 1.0), json!([])];
    let alone: Vec<_> = sets
        .iter()
        .map(|set| answer(&server, FRANCE, set))
        .collect();
    thread::scope(|scope| {
        let together: Vec<_> = (0..8)
            .map(|at| {
                let (server, set) = (&server, &sets[at % 4]);
                scope.spawn(move || answer(server, FRANCE, set))
            })
            .collect();
        for (at, answered) in together.into_iter().enumerate() {
            assert_eq!(answered.join().unwrap(), alone[at % 4]);
        }
    });
}

#[test]
fn what_one_set_computed_is_never_another_sets_prefix() {
    let server = adapted(BITS);
    let prompt = format!(
        "{}The capital of France is",
        "A story about seven cats. ".repeat(24)
    );
    let asked = |lora: &Value| {
        let body =
            json!({"prompt": prompt, "n_predict": 8, "temperature": 0, "n_probs": 1, "lora": lora});
        let said = ask(&server, "/completion", &body);
        (
            said["timings"]["cache_n"].as_u64().unwrap(),
            said["completion_probabilities"].clone(),
        )
    };
    let sets = [worn(0, 1.0), worn(0, 0.5), json!([]), worn(1, 1.0)];
    let cold = sets.each_ref().map(asked);
    assert_eq!(cold.each_ref().map(|(cached, _)| *cached), [0; 4]);
    for (set, (_, said)) in sets.iter().zip(cold) {
        let (cached, again) = asked(set);
        assert!(cached >= 128, "{set}: {cached}");
        assert_eq!(again, said, "{set}");
    }
}

#[test]
fn scales_for_all_requests_are_told_and_changed_while_the_server_runs() {
    let server = Server::start_adapted(&both(), &[ENGINE, BOTH]);
    let (_, text) = server.get("/lora-adapters").unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    let adapter = |id: u32, name: &str, scale: f64| json!({"id": id, "path": format!("adapter-{name}"), "scale": scale, "task_name": format!("task of {name}"), "prompt_prefix": ""});
    assert_eq!(
        told,
        json!([adapter(0, "one", 0.5), adapter(1, "two", 0.0)])
    );
    let configured = answer(&server, FRANCE, &json!([]));
    assert_eq!(configured, answer(&server, FRANCE, &worn(0, 0.5)));
    scale(&server, &worn(1, 1.0));
    let (_, text) = server.get("/lora-adapters").unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        told,
        json!([adapter(0, "one", 0.0), adapter(1, "two", 1.0)])
    );
    let changed = answer(&server, FRANCE, &json!([]));
    assert_ne!(changed, configured);
    assert_eq!(changed, answer(&server, FRANCE, &worn(1, 1.0)));
    for (body, why) in [
        (
            "{}",
            "an array of objects with `id` and `scale` is expected",
        ),
        (
            r#"[{"id":2,"scale":1}]"#,
            "[0].id: expected the number of an adapter from 0 to 1, got 2",
        ),
        (
            r#"[{"id":0,"scale":1},{"id":1}]"#,
            "[1].scale: expected a number, but it is missing",
        ),
        (
            r#"[{"id":0,"scale":1e9}]"#,
            "[0].scale: expected a number from -100 to 100",
        ),
        ("[7]", "[0]: expected an object with `id` and `scale`"),
    ] {
        let (status, text) = server.post("/lora-adapters", body).unwrap();
        assert!(
            status == 400 && text.contains(why),
            "{body}: {status} {text}"
        );
    }
    assert_eq!(changed, answer(&server, FRANCE, &json!([])));
}

#[test]
fn a_model_of_an_adapters_name_is_that_adapter_alone() {
    let server = adapted(ENGINE);
    let (_, text) = server.get("/v1/models").unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [server::MODEL, "poet"]);
    scale(&server, &worn(1, 1.0));
    let chat = |model: &str, lora: Value| {
        let body = json!({
            "model": model, "messages": [{"role": "user", "content": "Name a river."}], "lora": lora,
            "max_tokens": 12, "temperature": 0, "logprobs": true,
        });
        ask(&server, "/v1/chat/completions", &body)["choices"][0].clone()
    };
    let poet = chat("poet", Value::Null);
    assert_eq!(poet, chat(server::MODEL, worn(0, 0.5)));
    assert_ne!(poet, chat(server::MODEL, Value::Null));
    // What is said in so many words counts before the name.
    assert_eq!(chat("poet", worn(1, 1.0)), chat(server::MODEL, Value::Null));
    let body = json!({"prompt": FRANCE, "lora": [{"id": 5, "scale": 1}]});
    let (status, text) = server.post("/v1/completions", &body.to_string()).unwrap();
    assert!(
        status == 400 && text.contains("lora[0].id: expected the number of an adapter from 0 to 1"),
        "{text}"
    );
}

#[test]
fn an_adapter_that_waits_for_tokens_acts_from_them_on() {
    let server = Server::start_adapted(&[encoders::adapter("waiting")], &[ENGINE]);
    let before = "Once upon a time there was a king. ";
    let (plain, waiting) = (worn(0, 0.0), worn(0, 1.0));
    assert_eq!(
        answer(&server, before, &waiting),
        answer(&server, before, &plain)
    );
    let with = format!("{before}He lived in Paris, where");
    let first = |prompt| answer(&server, &with, prompt).1[0].to_bits();
    assert_ne!(first(&waiting), first(&plain));
    let (_, text) = server.get("/lora-adapters").unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told[0]["alora_invocation_tokens"], json!([7042]));
    assert_eq!(told[0]["alora_invocation_string"], " Paris");
}

#[test]
fn an_adapter_that_does_not_belong_is_refused_at_start_by_its_field() {
    for (kind, why) in [
        (
            "foreign",
            r#"it is for models of architecture "qwen2", and this one is of "llama""#,
        ),
        (
            "misshapen",
            "has the shape 576 × 576, and the adapter's matrices for it 640 × 4 and 4 × 576 do not fit",
        ),
        ("lonely", "blk.0.attn_q.weight.lora_a is missing"),
        (
            "strange",
            "its tensor blk.0.attn_q.weight is no part of a LoRA adapter",
        ),
        (
            "plain",
            r#"this is no LoRA adapter: general.type is "model", not "adapter""#,
        ),
        ("tied", "which this model uses for its output as well"),
    ] {
        let mut server = Server::spawn_adapted(&[encoders::adapter(kind)], &[ENGINE]);
        let status = server.wait(Duration::from_mins(2));
        let log = server.read_log();
        assert_eq!(status.code(), Some(78), "{kind}: {log}");
        assert!(
            log.contains("model.adapters: ") && log.contains(why),
            "{kind}: {log}"
        );
    }
}

#[test]
fn a_pinned_adapter_is_proved_and_one_with_other_bytes_is_refused() {
    server::fetch_model();
    let folder = tempfile::tempdir().unwrap();
    let model = fs::read_dir(server::models()).unwrap().flatten();
    let model = model
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(server::MODEL));
    let model = model.unwrap();
    std::os::unix::fs::symlink(&model, folder.path().join(model.file_name().unwrap())).unwrap();
    let bytes = fs::read(encoders::adapter("one")).unwrap();
    let sha256 = llm_server::lock::Digest::of_reader(&bytes[..], |_| ())
        .unwrap()
        .to_string();
    let builtin = llm_server::lock::Lock::builtin_text();
    let lock = folder.path().join("models.lock");
    let pinned = format!(
        "{builtin}\n[mine]\nsource = \"huggingface\"\nrepo = \"a/b\"\nrevision = \"{}\"\nfile = \"mine.gguf\"\n\
         sha256 = \"{sha256}\"\nsize = {}\nlicence = \"mit\"\n",
        "0".repeat(40),
        bytes.len()
    );
    fs::write(&lock, pinned).unwrap();
    let file = folder.path().join(format!("mine-{}.gguf", &sha256[..16]));
    let start = || {
        let mut command = server::command();
        command
            .env("LLM_SERVER_MODELS", folder.path())
            .arg("generate")
            .arg("The capital of France is");
        command
            .args([
                "--raw",
                "--temperature",
                "0",
                "--max-tokens",
                "12",
                "--lock",
            ])
            .arg(&lock);
        command.args([
            "--set",
            r#"model.adapters = [{name = "mine"}]"#,
            "--set",
            "engine.context = 256",
        ]);
        command.output().unwrap()
    };
    let missing = start();
    assert_eq!(missing.status.code(), Some(66), "{missing:?}");
    fs::write(&file, &bytes).unwrap();
    let output = start();
    assert!(output.status.success(), "{output:?}");
    let server = adapted(ENGINE);
    let body = json!({"prompt": FRANCE, "n_predict": 12, "temperature": 0, "lora": worn(0, 1.0)});
    let said = ask(&server, "/completion", &body);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        said["content"].as_str().unwrap().trim()
    );
    let mut other = bytes;
    *other.last_mut().unwrap() ^= 1;
    fs::write(&file, other).unwrap();
    let output = start();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("is not what models.lock pins as mine"),
        "{told}"
    );
}

#[test]
fn the_plan_counts_adapters_and_the_fingerprint_tells_of_them_and_their_scales() {
    let get = |server: &Server, path| {
        let (_, text) = server.get(path).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let server = Server::start_adapted(&both(), &[ENGINE, BOTH]);
    let props = get(&server, "/props");
    let devices = props["plan"]["devices"].as_array().unwrap();
    let bytes: u64 = devices
        .iter()
        .map(|device| device["adapters"].as_u64().unwrap())
        .sum();
    let files: u64 = both()
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(
        bytes < files && bytes > files - 40_000,
        "{bytes} of {files}"
    );
    let other = Server::start_adapted(&both(), &[ENGINE]);
    let plain = Server::start(&[ENGINE]);
    let fingerprint = |server| get(server, "/version")["system_fingerprint"].clone();
    let all = [
        fingerprint(&server),
        fingerprint(&other),
        fingerprint(&plain),
    ];
    assert!(
        all[0] != all[1] && all[1] != all[2] && all[0] != all[2],
        "{all:?}"
    );
}
