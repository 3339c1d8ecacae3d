//! The server that is measured when no URL is given: this program's own, on a free loopback port.

use std::{
    env, fs,
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level,
};
use tempfile::NamedTempFile;

use super::{Error, options::Own};

/// How often its `/health` is asked while it loads.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Lines of its log that are shown when it does not start.
const LAST_LINES: usize = 30;

/// A running server; ended by SIGTERM when dropped, or when this process is told to end.
pub(super) struct OwnServer {
    pub(super) url: String,
    child: Child,
    /// Until somebody has signalled it: a process id may be another's once it was waited for.
    running: Arc<Mutex<Option<Pid>>>,
    log: NamedTempFile,
}

impl OwnServer {
    /// Starts `serve` with these options and waits until it is ready.
    pub(super) fn start(own: &Own) -> Result<Self, Error> {
        let mut server = Self::spawn(own).map_err(Error::Start)?;
        eprintln!("{}: started for this measurement, loading", server.url);
        server.wait_until_ready()?;
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn spawn(own: &Own) -> io::Result<Self> {
        let address = free_address()?;
        let log = NamedTempFile::new()?;
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").args(&own.config);
        for setting in &own.set {
            command.arg("--set").arg(setting);
        }
        for (option, path) in [("--lock", &own.lock), ("--model-file", &own.model_file)] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        command.arg("--set").arg(format!("listen = {address:?}"));
        let child = command
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen()?)
            .spawn()?;
        let running = Arc::new(Mutex::new(Some(Pid::from_child(&child))));
        let server = Self {
            url: format!("http://{address}"),
            child,
            running,
            log,
        };
        for signal in [SIGINT, SIGTERM] {
            end_with_us(signal, Arc::clone(&server.running))?;
        }
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let health = format!("{}/health", self.url);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        // However long a model takes: what ends the waiting is an answer, or the end of the process.
        loop {
            if agent.get(&health).call().is_ok_and(|it| it.status() == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().map_err(Error::Start)? {
                return Err(Error::OwnServer {
                    status,
                    log: self.last_lines(),
                });
            }
            // Another process: there is nothing to wait on but its answer.
            thread::sleep(ASK_EVERY);
        }
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(self.log.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        terminate(&self.running);
        // It may have ended already; either way nothing is left running.
        let _ = self.child.wait();
    }
}

fn terminate(running: &Mutex<Option<Pid>>) {
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pid) = running.take() {
        // A child that was not waited for keeps its id, so this can reach nobody else.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Without this a measurement that is ended would leave the server, and its memory, behind.
fn end_with_us(signal: i32, running: Arc<Mutex<Option<Pid>>>) -> io::Result<()> {
    let (mut hear, tell) = UnixStream::pair()?;
    low_level::pipe::register(signal, tell)?;
    thread::spawn(move || {
        if hear.read_exact(&mut [0]).is_ok() {
            terminate(&running);
            low_level::exit(128 + signal);
        }
    });
    Ok(())
}

/// Free a moment ago; the kernel gives the same port to nobody else so soon.
fn free_address() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.to_string())
}
