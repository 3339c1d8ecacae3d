//! `llm-server models` as a process, against a server that plays the hub's API.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use llm_server::lock::{Lock, table_text};
use tempfile::{TempDir, tempdir};

use super::{Answer, ETAG, REVISION, Server, content, digest, entry, files};

/// An empty working directory, with a store in it, and one hub.
struct Desk {
    folder: TempDir,
    hub: Server,
}

impl Desk {
    fn new(hub: Server) -> Self {
        let folder = tempdir().unwrap();
        Self { folder, hub }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llm-server"));
        command
            .arg("models")
            .args(arguments)
            .current_dir(self.folder.path())
            .env("LLM_SERVER_MODELS", self.path("store"))
            .env("HF_ENDPOINT", self.hub.url())
            .env("NO_PROXY", "*")
            .env_remove("HF_TOKEN")
            .env_remove("SSL_CERT_FILE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that works.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Exit code and standard error of a command that does not.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap(), text(&output.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Two quantizations, a projector, a split model, a file too small for a digest, over two pages.
fn api() -> Server {
    let large = |path: &str, size: u64, digit: &str| {
        let oid = digit.repeat(64);
        format!(
            r#"{{"type":"file","oid":"{}","size":{size},"path":"{path}","lfs":{{"oid":"{oid}","size":{size},"pointerSize":134}}}}"#,
            "f".repeat(40)
        )
    };
    let first_page = format!(
        "[{},{},{}]",
        large("Tiny-Q4_K_M.gguf", 1_234_567, "a"),
        large("Tiny-Q8_0.gguf", 2_345_678, "b"),
        r#"{"type":"directory","oid":"e","size":0,"path":"big"}"#,
    );
    let second_page = format!(
        "[{},{},{},{}]",
        large("mmproj-F16.gguf", 345_678, "c"),
        large("big/Tiny-F32-00001-of-00002.gguf", 9_999_999, "d"),
        r#"{"type":"file","oid":"e","size":9,"path":"small.gguf"}"#,
        r#"{"type":"file","oid":"e","size":99,"path":"README.md"}"#,
    );
    let model = format!(
        r#"{{"id":"owner/tiny-GGUF","sha":"{REVISION}","cardData":{{"license":"apache-2.0"}},"gguf":{{"context_length":8192,"architecture":"llama"}}}}"#
    );
    Server::start(move |request, _| {
        let tree = format!("/api/models/owner/tiny-GGUF/tree/{REVISION}?recursive=true");
        let host = request.header("host").unwrap_or_default();
        let next = format!("<http://{host}{tree}&cursor=2>; rel=\"next\"");
        match request.target.as_str() {
            "/api/models/owner/tiny-GGUF/revision/main"
            | "/api/models/owner/tiny-GGUF/revision/refs%2Fpr%2F1" => {
                Answer::new(200, model.as_str())
            }
            target if target == tree => Answer::new(200, first_page.as_str()).with("Link", next),
            target if target == format!("{tree}&cursor=2") => {
                Answer::new(200, second_page.as_str())
            }
            _ => Answer::new(404, ""),
        }
    })
}

#[test]
fn add_pins_a_file_by_what_the_hub_says_and_downloads_nothing() {
    let desk = Desk::new(api());
    let lock = desk.path("models.lock");
    fs::write(&lock, "# my models\n").unwrap();
    let said = desk.says(&["add", "hf:owner/tiny-GGUF", "--file", "q8_0"]);
    assert!(said.starts_with("# added to models.lock\n"), "{said}");
    desk.says(&["add", "owner/tiny-GGUF@refs/pr/1:Q4_K_M", "--name", "tiny"]);
    desk.says(&["add", "owner/tiny-GGUF", "--file", "mmproj-F16.gguf"]);
    insta::assert_snapshot!(fs::read_to_string(&lock).unwrap());
    assert_eq!(Lock::read(&lock).unwrap().names().count(), 3);
    assert!(
        desk.hub
            .requests()
            .iter()
            .all(|request| request.target.starts_with("/api/"))
    );
}

#[test]
fn add_refuses_what_it_cannot_pin_and_leaves_the_lock_alone() {
    let desk = Desk::new(api());
    let lock = desk.path("models.lock");
    fs::write(&lock, "").unwrap();
    desk.says(&["add", "owner/tiny-GGUF", "--file", "Q8_0", "--name", "tiny"]);
    let before = fs::read_to_string(&lock).unwrap();
    let cases: [&[&str]; 9] = [
        &["owner/tiny-GGUF"],
        &["owner/tiny-GGUF:Q5_K_M"],
        &[
            "owner/tiny-GGUF",
            "--file",
            "big/Tiny-F32-00001-of-00002.gguf",
        ],
        &["owner/tiny-GGUF", "--file", "small.gguf"],
        &["owner/tiny-GGUF:Q8_0"],
        &["owner/tiny-GGUF:Q4_K_M", "--name", "tiny"],
        &["owner/tiny-GGUF:Q4_K_M", "--name", "Tiny"],
        &["owner/absent"],
        &["https://hub/owner/tiny"],
    ];
    let said: Vec<_> = cases
        .into_iter()
        .map(|case| {
            let (code, said) = desk.fails(&[&["add"], case].concat());
            let said = said.replace(&desk.hub.url(), "http://HUB");
            format!("{} → {code}\n{said}", case.join(" "))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(fs::read_to_string(&lock).unwrap(), before);
}

#[test]
fn add_without_a_lock_file_starts_one_that_keeps_the_built_in_models() {
    let desk = Desk::new(api());
    desk.says(&["add", "owner/tiny-GGUF", "--file", "Q8_0"]);
    let lock = Lock::read(&desk.path("models.lock")).unwrap();
    assert!(lock.get("tiny-q8_0").is_some());
    assert!(lock.get("smollm2-135m-instruct").is_some());
}

#[test]
fn a_failed_add_starts_no_lock_file() {
    let desk = Desk::new(api());
    let (code, _) = desk.fails(&["add", "owner/absent"]);
    assert_eq!(code, 1);
    assert_eq!(files(desk.folder.path()), Vec::<String>::new());
}

/// A desk whose lock has one model, which its hub serves.
fn stocked(content: &[u8]) -> Desk {
    let served = content.to_vec();
    let desk = Desk::new(Server::start(move |request, _| {
        Answer::file(request, &served, ETAG)
    }));
    fs::write(
        desk.path("models.lock"),
        table_text("tiny", &entry(content)),
    )
    .unwrap();
    desk
}

#[test]
fn a_model_is_fetched_listed_verified_and_found() {
    let content = content(300_000);
    let desk = stocked(&content);
    let (code, said) = desk.fails(&["path", "tiny"]);
    assert!(
        code == 66 && said.contains("llm-server models fetch tiny"),
        "{code} {said}"
    );
    assert!(
        desk.says(&["list"])
            .contains("-        mit         huggingface owner/tiny"),
        "{}",
        desk.says(&["list"])
    );

    let output = desk.run(&["fetch", "tiny"]);
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("tiny: 0.3 MB of 0.3 MB (100 %)"),
        "plain lines where no terminal is: {said}"
    );
    let path = desk.says(&["path", "tiny"]);
    assert!(fs::read(path.trim_end()).unwrap() == content);

    let list: serde_json::Value = serde_json::from_str(&desk.says(&["list", "--json"])).unwrap();
    assert_eq!(list[0]["name"], "tiny");
    assert_eq!(list[0]["fetched"], true);
    assert_eq!(list[0]["sha256"], digest(&content).to_string());
    assert!(desk.says(&["verify"]).starts_with("tiny: as pinned"));

    let mut spoilt = content.clone();
    spoilt[7] ^= 1;
    fs::write(path.trim_end(), &spoilt).unwrap();
    for arguments in [&["verify"][..], &["verify", "tiny"]] {
        let output = desk.run(arguments);
        assert_eq!(output.status.code(), Some(65));
        let said = text(&output.stdout);
        assert!(
            said.contains(&digest(&spoilt).to_string())
                && said.contains(&digest(&content).to_string()),
            "{said}"
        );
    }
}

#[test]
fn adapters_that_the_configuration_names_are_fetched_with_its_model() {
    let content = content(3000);
    let desk = stocked(&content);
    let tables = ["tiny", "tone", "other"].map(|name| table_text(name, &entry(&content)));
    fs::write(desk.path("models.lock"), tables.join("\n")).unwrap();
    let named = r#"{ model = { name = "tiny", adapters = [{ name = "tone", scale = 0 }] } }"#;
    fs::write(desk.path("config.ncl"), named).unwrap();
    let fetched = |arguments: &[&str]| {
        let said = desk.says(arguments);
        let lines = said
            .lines()
            .map(|line| line.split(':').next().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(fetched(&["fetch", "other"]), ["other"]);
    assert_eq!(fetched(&["fetch", "tiny"]), ["tiny", "tone"]);
    fs::rename(desk.path("config.ncl"), desk.path("mine.ncl")).unwrap();
    assert_eq!(fetched(&["fetch", "tiny"]), ["tiny"]);
    assert_eq!(
        fetched(&["fetch", "tiny", "--config", "mine.ncl"]),
        ["tiny", "tone"]
    );
    fs::write(desk.path("mine.ncl"), "{ model = 3 }").unwrap();
    let output = desk.run(&["fetch", "tiny", "--config", "mine.ncl"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("the configuration is left out"));
}

#[test]
fn two_processes_fetch_once() {
    let content = content(3_000_000);
    let desk = stocked(&content);
    let start = || {
        let mut command = desk.command(&["fetch", "tiny"]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let processes: Vec<_> = (0..3).map(|_| start()).collect();
    let mut said = String::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        said.push_str(&text(&output.stdout));
    }
    assert_eq!(desk.hub.requests().len(), 1);
    assert_eq!(said.matches("fetched in").count(), 1, "{said}");
    assert_eq!(said.matches("is there").count(), 2, "{said}");
}

#[test]
fn wrong_usage_and_a_bad_lock_exit_with_2() {
    let desk = stocked(b"x");
    let (code, said) = desk.fails(&["fetch", "absent"]);
    assert!(
        code == 2 && said.contains("absent is not in models.lock; it has: tiny"),
        "{code} {said}"
    );
    assert_eq!(desk.fails(&["fetch"]).0, 2);
    fs::write(desk.path("bad.lock"), "[tiny]\nsource = 1\n").unwrap();
    let (code, said) = desk.fails(&["--lock", "bad.lock", "list"]);
    assert!(
        code == 2 && said.contains("bad.lock: table [tiny], field `source`"),
        "{code} {said}"
    );
    assert!(!Path::new("absent.lock").exists());
    assert_eq!(desk.fails(&["--lock", "absent.lock", "list"]).0, 2);
}
