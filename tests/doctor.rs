//! `llm-server doctor` against real faults: each is found, named, and comes with its cure.

#[path = "support/server.rs"]
mod server;

use std::{
    fs,
    fs::OpenOptions,
    net::TcpListener,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A free port, so that whoever has 8080 on this machine does not matter.
const ANY_PORT: &str = "listen = \"127.0.0.1:0\"";

/// What a run said of itself.
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    fn of(mut command: Command) -> Self {
        let output = command.output().expect("the command can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {}", words(&output)));
        let findings = report["findings"].as_array().unwrap().clone();
        let failed = findings.iter().any(|it| it["verdict"] == "fail");
        assert_eq!(report["ok"], !failed, "{report:#}");
        let code = output.status.code();
        assert_eq!(code, Some(i32::from(failed)), "{report:#}");
        Self { code, findings }
    }

    #[track_caller]
    fn expect(&self, subject: &str, verdict: &str, found: &str, cure: &str) {
        let all = &self.findings;
        let finding = all.iter().find(|it| it["subject"] == subject);
        let finding = finding.unwrap_or_else(|| panic!("nothing on {subject}: {all:#?}"));
        assert_eq!(finding["verdict"], verdict, "{finding:#}");
        let said = |field: &str| finding[field].as_str().unwrap_or("").to_owned();
        assert!(said("found").contains(found), "{finding:#}");
        assert!(said("cure").contains(cure), "{finding:#}");
        assert_eq!(said("cure").is_empty(), verdict == "ok", "{finding:#}");
    }
}

fn words(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    text.concat()
}

/// `llm-server doctor` on a free port with `settings`.
fn doctor(settings: &[&str]) -> Command {
    with_settings(server::command(), settings)
}

fn with_settings(mut command: Command, settings: &[&str]) -> Command {
    command.args(["doctor", "--json"]);
    for setting in [ANY_PORT].iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

/// The same without any of root's rights: files closed to their owner stay closed, limits hold.
fn unprivileged(settings: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return doctor(settings);
    }
    let plain = server::command();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(plain.get_program())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LLM_SERVER_MODELS", server::models())
        .env_remove("NOTIFY_SOCKET");
    with_settings(command, settings)
}

/// A store of its own with the small model in it.
fn own_store() -> (TempDir, PathBuf) {
    server::fetch_model();
    let lock = llm_server::lock::Lock::builtin();
    let entry = lock.get(server::MODEL).unwrap();
    let at = |folder: &Path| llm_server::lock::Store::at(folder).path(server::MODEL, entry);
    let folder = tempfile::tempdir().unwrap();
    let file = at(folder.path());
    fs::copy(at(&server::models()), &file).unwrap();
    (folder, file)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_machine_that_serves_the_small_model_has_nothing_that_fails() {
    server::fetch_model();
    let report = Report::of(doctor(&[]));
    assert_eq!(report.code, Some(0));
    report.expect("configuration", "ok", "config.ncl is right", "");
    report.expect("model", "ok", "digest was seen to be the pinned one", "");
    report.expect("memory", "ok", "the plan takes: host", "");
    report.expect("address", "ok", "127.0.0.1:0 is free", "");
    report.expect("API keys", "ok", "none asked for", "");
    let subjects: Vec<_> = report.findings.iter().map(|it| &it["subject"]).collect();
    for subject in [
        "CPU",
        "threads",
        "CPU governor",
        "GPU driver",
        "locked memory",
        "disk",
        "state folder",
        "huge pages",
        "systemd",
        "clock",
    ] {
        assert!(subjects.iter().any(|it| **it == subject), "{subject}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_who_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let report = Report::of(doctor(&[&format!("listen = \"{address}\"")]));
    let holder = format!("(process {})", std::process::id());
    report.expect("address", "fail", &holder, "set `listen` to another port");
}

#[test]
fn a_port_that_the_server_itself_has_is_no_fault() {
    let server = server::Server::start(&["engine = {context = 512, parallel = 1}"]);
    let report = Report::of(doctor(&[&format!("listen = \"{}\"", server.address)]));
    let holder = format!("llm-server (process {})", server.pid());
    report.expect("address", "ok", &holder, "");
}

#[test]
fn a_key_file_that_cannot_be_read_fails_and_one_that_others_read_is_warned_of() {
    server::fetch_model();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "sk-for-this-test-only\n").unwrap();
    let setting = format!("auth.key_files = [\"{}\"]", file.display());

    set_mode(&file, 0o000);
    let report = Report::of(unprivileged(&[&setting]));
    report.expect("API keys", "fail", "Permission denied", "chmod 0400");
    set_mode(&file, 0o644);
    let report = Report::of(unprivileged(&[&setting]));
    report.expect("API keys", "warn", "(mode 0644)", "chmod 0400");
    set_mode(&file, 0o400);
    let report = Report::of(unprivileged(&[&setting]));
    report.expect("API keys", "ok", "1 key in ", "");
}

#[test]
fn a_missing_model_fails_with_the_command_that_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = doctor(&[]);
    command.env("LLM_SERVER_MODELS", folder.path());
    let report = Report::of(command);
    let cure = format!("llm-server models fetch {}", server::MODEL);
    report.expect("model", "fail", "No such file", &cure);
    report.expect("state folder", "ok", "can be written", "");
    // Without a model the disk is measured by a file that is gone afterwards.
    report.expect("disk", "ok", "MB/s", "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_flipped_bit_in_the_model_is_found() {
    let (folder, file) = own_store();
    let weights = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file)
        .unwrap();
    let at = weights.metadata().unwrap().len() / 2;
    let mut byte = [0];
    weights.read_exact_at(&mut byte, at).unwrap();
    weights.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let mut command = doctor(&[]);
    command.env("LLM_SERVER_MODELS", folder.path());
    let report = Report::of(command);
    report.expect(
        "model",
        "fail",
        "is not what models.lock pins",
        "models fetch",
    );
}

#[test]
fn a_model_cut_short_is_found_without_hashing_it() {
    let (folder, file) = own_store();
    let weights = OpenOptions::new().write(true).open(&file).unwrap();
    weights.set_len(1 << 20).unwrap();
    let mut command = doctor(&[]);
    command.env("LLM_SERVER_MODELS", folder.path());
    let report = Report::of(command);
    report.expect("model", "fail", "has 1048576 bytes", "models fetch");
}

#[test]
fn a_limit_of_locked_memory_below_the_weights_fails_only_if_they_are_to_be_locked() {
    server::fetch_model();
    let limited = |setting: &str| {
        let inner = unprivileged(&[setting]);
        let mut command = Command::new("prlimit");
        command
            .arg("--memlock=65536:65536")
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("LLM_SERVER_MODELS", server::models());
        Report::of(command)
    };
    let report = limited("engine.load = 'mlock");
    report.expect(
        "locked memory",
        "fail",
        "at most 64.0 KiB may be",
        "LimitMEMLOCK=infinity",
    );
    let report = limited("engine.load = 'mmap");
    report.expect("locked memory", "ok", "nothing is to be locked", "");
}

#[test]
fn a_read_only_state_folder_fails_without_the_model_and_is_warned_of_with_it() {
    let (folder, file) = own_store();
    let look = || {
        let mut command = unprivileged(&[]);
        command.env("LLM_SERVER_MODELS", folder.path());
        Report::of(command)
    };
    set_mode(folder.path(), 0o555);
    let present = look();
    set_mode(folder.path(), 0o755);
    fs::remove_file(file).unwrap();
    set_mode(folder.path(), 0o555);
    let absent = look();
    set_mode(folder.path(), 0o755);
    present.expect(
        "state folder",
        "warn",
        "cannot be written",
        "own the folder",
    );
    present.expect("model", "ok", "digest is the pinned one", "");
    absent.expect(
        "state folder",
        "fail",
        "and the model is not there",
        "LLM_SERVER_MODELS",
    );
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_fails() {
    if Path::new("/proc/driver/nvidia/version").exists() {
        return; // this machine has one
    }
    server::fetch_model();
    let report = Report::of(doctor(&["engine.placement.gpu_layers = 'all"]));
    report.expect(
        "GPU driver",
        "fail",
        "asks for a GPU",
        "gpu_layers at 'auto",
    );
}

#[test]
fn a_plan_beyond_the_machines_memory_fails_with_what_would_fit() {
    server::fetch_model();
    // Some 360 GiB of cache.
    let large = "engine = {context = 131072, parallel = 128, beyond_trained_context = true}";
    let report = Report::of(doctor(&[large]));
    report.expect("memory", "fail", "engine.", "llm-server plan");
}

#[test]
fn a_wrong_configuration_is_drawn_and_the_machine_is_examined_all_the_same() {
    let report = Report::of(doctor(&["limits.queue = \"many\""]));
    report.expect(
        "configuration",
        "fail",
        "limits.queue = \"many\"",
        "llm-server schema",
    );
    report.expect("clock", "ok", "GMT", "");
    assert!(report.findings.iter().all(|it| it["subject"] != "model"));
}

#[test]
fn people_read_a_line_for_each_and_the_cure_below() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = server::command();
    command.args(["doctor", "--set", ANY_PORT]);
    let output = command
        .env("LLM_SERVER_MODELS", folder.path())
        .output()
        .unwrap();
    let text = words(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("configuration   ok   config.ncl is right\n"),
        "{text}"
    );
    assert!(text.contains("\nmodel           FAIL no"), "{text}");
    let cure = format!("\n{:21}→ llm-server models fetch {}\n", "", server::MODEL);
    assert!(text.contains(&cure), "{text}");
}
