//! A service manager for tests: starts the real binary with a notify socket and hears what it says, in order.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_mins(2);

/// A started process and its voice; killed when dropped.
pub(crate) struct Service {
    pid: Pid,
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
    notify: UnixDatagram,
    /// Every line it sent, in order.
    pub(crate) said: Vec<String>,
    log: PathBuf,
    /// Holds the socket and the log.
    pub(crate) folder: TempDir,
}

impl Service {
    /// Starts `command` as a notify service.
    pub(crate) fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("notify");
        let notify = UnixDatagram::bind(&socket).expect("a notify socket");
        let log = folder.path().join("log");
        let mut child = command
            .env("NOTIFY_SOCKET", &socket)
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("the binary can be started");
        let pid = Pid::from_child(&child);
        let (tell, ended) = mpsc::channel();
        thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _ = tell.send(status);
            }
        });
        Self {
            pid,
            ended,
            status: None,
            notify,
            said: Vec::new(),
            log,
            folder,
        }
    }

    /// The first line from now on that begins with `start`; what comes before it is kept in `said`.
    pub(crate) fn hear(&mut self, start: &str) -> String {
        let deadline = Instant::now() + LONG;
        let mut message = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "never said {start}: {:?}\n{}",
                self.said,
                self.log()
            );
            // Short enough to see that the process has ended and will say nothing more.
            let wait = left.min(Duration::from_millis(500));
            self.notify
                .set_read_timeout(Some(wait))
                .expect("a socket option");
            let size = match self.notify.recv(&mut message) {
                Ok(size) => size,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    assert!(
                        self.ended().is_none(),
                        "ended before {start}: {:?}\n{}",
                        self.said,
                        self.log()
                    );
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let text = String::from_utf8_lossy(&message[..size]).into_owned();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            self.said.extend(lines.iter().cloned());
            if let Some(line) = lines.into_iter().find(|line| line.starts_with(start)) {
                return line;
            }
        }
    }

    /// `host:port` as the first status line tells it.
    pub(crate) fn address(&mut self) -> String {
        let status = self.hear("STATUS=");
        let (_, address) = status
            .split_once("listening on http://")
            .expect("a status that names the address");
        address.trim_end_matches(')').to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the process is ours and not yet waited for");
    }

    /// A file of the running process's folder in `/proc`.
    pub(crate) fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid.as_raw_nonzero());
        String::from_utf8_lossy(&fs::read(path).expect("the process runs")).into_owned()
    }

    /// How the process ended, within the deadline.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        if self.status.is_none() {
            self.status = self.ended.recv_timeout(within).ok();
        }
        self.status
            .unwrap_or_else(|| panic!("still running after {within:?}:\n{}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.status = self.status.or_else(|| self.ended.try_recv().ok());
        self.status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = self.ended.recv_timeout(LONG);
        }
    }
}
