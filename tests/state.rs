//! Computed states across restarts and in clients' files, end to end: with a model whose state can be cut anywhere, a
//! hybrid one, and one with sliding windows.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/http.rs"]
mod http;
#[path = "support/server.rs"]
mod server;
#[path = "support/systemd.rs"]
mod systemd;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use http::post;
use rustix::process::Signal;
use serde_json::{Value, json};
use systemd::Service;

const ENGINE: &str = "engine = {context = 2048, parallel = 2, threads = 1}";
/// The prompts are short.
const CHECKPOINTS: &str = "cache.checkpoint_every = 128";

/// The small model, or a file.
fn start(model: Option<&Path>, settings: &[String]) -> (Service, String) {
    server::fetch_model();
    let mut command = server::command();
    command.arg("serve");
    if let Some(model) = model {
        command.arg("--model-file").arg(model);
    }
    command.args([
        "--set",
        "listen = \"127.0.0.1:0\"",
        "--set",
        ENGINE,
        "--set",
        CHECKPOINTS,
    ]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut service = Service::start(command);
    let address = service.address();
    service.hear("READY=1");
    (service, address)
}

fn stop(mut service: Service) -> String {
    service.signal(Signal::TERM);
    let status = service.wait(systemd::LONG);
    assert!(status.success(), "{status}: {}", service.log());
    service.log()
}

/// What was answered, with its probabilities, and how much of the prompt was found.
fn complete(address: &str, prompt: &str) -> (Value, u64) {
    let body = json!({"prompt": prompt, "n_predict": 12, "temperature": 0, "n_probs": 1});
    let (status, answer) = post(address, "/completion", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let cached = answer["timings"]["cache_n"].as_u64().unwrap();
    let said = json!([answer["content"], answer["completion_probabilities"]]);
    (said, cached)
}

fn act(address: &str, action: &str, file: &str) -> (u16, Value) {
    let path = format!("/slots/0?action={action}");
    let body = json!({"filename": file}).to_string();
    let (status, answer) = post(address, &path, &body);
    (status, serde_json::from_str(&answer).unwrap())
}

fn history(name: &str) -> String {
    format!(
        "The story of {name}. {}",
        "He had seven cats and a lamp. ".repeat(30)
    )
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "state"))
        .collect()
}

/// A server that ends, and one that goes on where it was.
fn outlives_a_restart(model: Option<&Path>, at_least: u64) {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let settings = [
        format!(
            "cache = {{disk = 200, ram = 200, folder = \"{}\"}}",
            kept.display()
        ),
        // Else the last bits may differ between a prompt that is computed at once and one that is found.
        "engine = {reproducible = true, ubatch = 128}".to_owned(),
    ];
    let (service, address) = start(model, &settings);
    let told: Vec<_> = ["Anna", "Bert", "Carl"]
        .map(|name| complete(&address, &history(name)).0)
        .into();
    let log = stop(service);
    assert!(log.contains("computed prompts are on the disk"), "{log}");
    assert_eq!(files(&kept).len(), 3, "two sequences and one put aside");
    for file in files(&kept) {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let (service, address) = start(model, &settings);
    for (name, told) in ["Anna", "Bert", "Carl"].iter().zip(&told) {
        let (again, cached) = complete(&address, &history(name));
        assert_eq!(&again, told, "{name}");
        assert!(cached >= at_least, "{name}: {cached} tokens found");
    }
    stop(service);
}

#[test]
fn prompts_outlive_a_restart_and_are_answered_as_before() {
    outlives_a_restart(None, 128);
}

#[test]
fn prompts_of_a_hybrid_model_outlive_a_restart() {
    outlives_a_restart(Some(&encoders::hybrid()), 128);
}

#[test]
fn prompts_of_a_model_with_sliding_windows_outlive_a_restart() {
    outlives_a_restart(Some(&encoders::windowed()), 128);
}

#[test]
fn what_another_configuration_wrote_is_removed_and_what_is_damaged_too() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let cache = format!(
        "cache = {{disk = 200, ram = 200, folder = \"{}\"}}",
        kept.display()
    );
    let settings = |more: &str| [cache.clone(), more.to_owned()];
    let (service, address) = start(None, &settings("log.level = \"info\""));
    let (told, _) = complete(&address, &history("Anna"));
    complete(&address, &history("Bert"));
    stop(service);
    // One is cut short, the other gets a flipped bit far inside.
    for (at, path) in files(&kept).into_iter().enumerate() {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        if at == 0 {
            bytes.truncate(middle);
        } else {
            bytes[middle] ^= 16;
        }
        fs::write(path, bytes).unwrap();
    }
    let (service, address) = start(None, &settings("log.level = \"info\""));
    assert_eq!(complete(&address, &history("Anna")), (told, 0));
    assert_eq!(complete(&address, &history("Bert")).1, 0);
    let log = stop(service);
    assert!(
        log.contains("it was cut short") && log.contains("it is damaged"),
        "{log}"
    );
    assert_eq!(files(&kept).len(), 2, "written anew");
    let (service, address) = start(None, &settings("engine.kv.k = 'q8_0"));
    assert_eq!(complete(&address, &history("Anna")).1, 0);
    let log = stop(service);
    assert!(
        log.contains("`engine.kv.k` is f16 there and q8_0 here"),
        "{log}"
    );
}

#[test]
fn a_disk_that_is_full_and_a_folder_that_is_taken_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let settings = [format!("cache = {{disk = 200, folder = {kept:?}}}")];
    let (service, address) = start(None, &settings);
    let mut second = server::command();
    second.args([
        "serve",
        "--set",
        "listen = \"127.0.0.1:0\"",
        "--set",
        &settings[0],
    ]);
    let refused = second.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("cache.folder: ") && said.contains("another server uses it"),
        "{said}"
    );
    complete(&address, &history("Anna"));
    // A folder that is gone stands for a disk that takes nothing.
    fs::remove_dir_all(&kept).unwrap();
    let log = stop(service);
    assert!(log.contains("cannot be written any more"), "{log}");
}

/// Saved, erased, restored in another process, and gone on with.
fn goes_on_from_a_file(model: Option<&Path>, at_least: u64) {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        format!("cache.slots = \"{}\"", folder.path().display()),
        "engine.parallel = 1".to_owned(),
    ];
    let (service, address) = start(model, &settings);
    let turn = history("Anna");
    let (first, _) = complete(&address, &turn);
    let next = format!("{turn}{} And then", first[0].as_str().unwrap());
    let (status, saved) = act(&address, "save", "anna");
    assert_eq!(status, 200, "{saved}");
    assert!(saved["n_saved"].as_u64() > Some(at_least), "{saved}");
    let (told, _) = complete(&address, &next);
    let (status, erased) = act(&address, "erase", "");
    assert_eq!(status, 200, "{erased}");
    assert!(
        erased["n_erased"].as_u64() > saved["n_saved"].as_u64(),
        "{erased}"
    );
    stop(service);

    let (service, address) = start(model, &settings);
    let (status, restored) = act(&address, "restore", "anna");
    assert_eq!(status, 200, "{restored}");
    assert_eq!(restored["n_restored"], saved["n_saved"]);
    assert_eq!(restored["n_read"], saved["n_written"]);
    let (again, cached) = complete(&address, &next);
    assert_eq!(again, told);
    assert!(cached >= at_least, "{cached} tokens found");

    // Whatever becomes of the file: refused, and the process goes on with what it has.
    let path = folder.path().join("0000000000000000/anna");
    let whole = fs::read(&path).unwrap();
    let mut seed = 7_usize;
    for round in 0..60 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (seed >> 20) % whole.len();
        let mut bytes = whole.clone();
        if round % 3 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (round % 8);
        }
        fs::write(&path, bytes).unwrap();
        let (status, refused) = act(&address, "restore", "anna");
        assert_eq!(status, 400, "byte {at}: {refused}");
        assert_eq!(refused["error"]["param"], "filename");
    }
    let (again, cached) = complete(&address, &next);
    assert_eq!(again, told);
    assert!(cached >= at_least, "{cached} tokens found");
    stop(service);
}

#[test]
fn a_sequence_goes_on_from_a_file_and_a_damaged_one_is_refused() {
    goes_on_from_a_file(None, 200);
}

#[test]
fn a_sequence_of_a_hybrid_model_goes_on_from_a_file() {
    goes_on_from_a_file(Some(&encoders::hybrid()), 200);
}

#[test]
fn a_sequence_with_sliding_windows_goes_on_from_a_file() {
    goes_on_from_a_file(Some(&encoders::windowed()), 200);
}
