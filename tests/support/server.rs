//! The real binary with the real small model, started for a test and ended with it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Key in `models.lock` of the model that tests answer with.
pub(crate) const MODEL: &str = "smollm2-135m-instruct";

/// Loading takes a second; a busy machine may take much longer, but not for ever.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// A running server on a free port of the loopback address; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it wrote to stderr.
    pub(crate) log: PathBuf,
}

/// The binary under test, in the project's folder (where `config.ncl` and `models.lock` lie) and
/// with the tests' own folder of models.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-server"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LLM_SERVER_MODELS", models())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null());
    command
}

/// Where tests keep models; shared by all of them and kept between runs.
pub(crate) fn models() -> PathBuf {
    target().join("test-models")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_llm-server"));
    let target = binary
        .ancestors()
        .nth(2)
        .expect("target/<profile>/llm-server");
    target.to_owned()
}

/// Fetches the small model unless it is there. Processes that do so at once wait for each other.
pub(crate) fn fetch_model() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        fs::create_dir_all(models()).expect("the target folder can be written");
        let output = command().args(["models", "fetch", MODEL]).output();
        let output = output.expect("the binary can be started");
        assert!(
            output.status.success(),
            "`llm-server models fetch {MODEL}` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
}

impl Server {
    /// Starts a server with `--set` for each of `settings`, and waits until it is ready.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::spawn(settings).ready()
    }

    /// The same for a model's file outside `models.lock`.
    pub(crate) fn start_file(file: &Path, settings: &[&str]) -> Self {
        Self::spawn_file(file, settings).ready()
    }

    /// [`Self::start_file`] without waiting.
    pub(crate) fn spawn_file(file: &Path, settings: &[&str]) -> Self {
        let mut command = command();
        command.arg("serve").arg("--model-file").arg(file);
        Self::run(command, settings)
    }

    /// Starts a server whose model sees through a projector outside `models.lock`, and waits until it is ready.
    pub(crate) fn start_seeing(projector: &Path, settings: &[&str]) -> Self {
        Self::spawn_seeing(projector, settings).ready()
    }

    /// The same for a model's file outside `models.lock` as well.
    pub(crate) fn start_seeing_file(model: &Path, projector: &Path, settings: &[&str]) -> Self {
        let mut command = command();
        command.arg("serve").arg("--model-file").arg(model);
        command.arg("--projector-file").arg(projector);
        Self::run(command, settings).ready()
    }

    /// [`Self::start_seeing`] without waiting.
    pub(crate) fn spawn_seeing(projector: &Path, settings: &[&str]) -> Self {
        fetch_model();
        let mut command = command();
        command.arg("serve").arg("--projector-file").arg(projector);
        Self::run(command, settings)
    }

    /// Starts a server that offers adapters outside `models.lock`, and waits until it is ready.
    pub(crate) fn start_adapted(adapters: &[PathBuf], settings: &[&str]) -> Self {
        Self::spawn_adapted(adapters, settings).ready()
    }

    /// The same without waiting.
    pub(crate) fn spawn_adapted(adapters: &[PathBuf], settings: &[&str]) -> Self {
        fetch_model();
        let mut command = command();
        command.arg("serve");
        for adapter in adapters {
            command.arg("--adapter-file").arg(adapter);
        }
        Self::run(command, settings)
    }

    fn ready(mut self) -> Self {
        let server = &mut self;
        let deadline = Instant::now() + READY_WITHIN;
        while !server.is_ready() {
            assert!(
                server.ended().is_none() && Instant::now() < deadline,
                "the server did not become ready:\n{}",
                server.read_log()
            );
            // Another process: there is nothing to wait on but its answer.
            thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Starts a server and returns once it listens; the model may still be loading.
    pub(crate) fn spawn(settings: &[&str]) -> Self {
        fetch_model();
        let mut command = command();
        command.arg("serve");
        Self::run(command, settings)
    }

    fn run(mut command: Command, settings: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let logs = target().join("test-logs");
        fs::create_dir_all(&logs).expect("the target folder can be written");
        let log = logs.join(format!("server-{}-{number}.log", std::process::id()));
        // Port 0: the kernel chooses, so no two tests can meet.
        command.args(["--set", "listen = \"127.0.0.1:0\""]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let stderr = File::create(&log).expect("the log can be written");
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn();
        let mut server = Self {
            child: child.expect("the binary can be started"),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            log,
        };
        server.address = server.listening();
        server
    }

    /// The address that the server says it listens on.
    fn listening(&mut self) -> SocketAddr {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let log = self.read_log();
            let said = log.split("address=http://").nth(1);
            // The end of the line must have been written too.
            if let Some((address, _)) = said.and_then(|said| said.split_once([' ', '\n'])) {
                return address.parse().expect("the log names an address");
            }
            assert!(
                self.ended().is_none() && Instant::now() < deadline,
                "the server does not listen:\n{log}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.get("/health"), Ok((200, _)))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and body of a GET request.
    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, String)> {
        exchange(
            self.address,
            &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        )
    }

    /// Status and body (streamed or not) of a POST request with a JSON body.
    pub(crate) fn post(&self, path: &str, body: &str) -> io::Result<(u16, String)> {
        exchange(
            self.address,
            &format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{name}");
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {within:?}:\n{}",
                self.read_log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn read_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Sends a request as it is, and reads status and body.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(READY_WITHIN))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {answer:?}")))?;
    Ok((status, joined(head, body)))
}

/// The body without the frames of chunked transfer.
fn joined(head: &str, body: &str) -> String {
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return body.to_owned();
    }
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        whole.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or("");
    }
    whole
}
