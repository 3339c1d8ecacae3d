//! `llm-server rpc-worker` as a process of its own, which lends one thread of the CPU.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::server;

/// It starts in a moment; a busy machine may take much longer, but not for ever.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// A worker on the loopback address; killed when dropped.
pub(crate) struct Worker {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Worker {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    /// Returns once it lends.
    pub(crate) fn start_at(listen: SocketAddr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let logs = server::target().join("test-logs");
        fs::create_dir_all(&logs).unwrap();
        let log = logs.join(format!("worker-{}-{number}.log", std::process::id()));
        let child = server::command()
            .args([
                "rpc-worker",
                "--devices",
                "CPU",
                "--threads",
                "1",
                "--listen",
            ])
            .arg(listen.to_string())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut worker = Self {
            child,
            address: listen,
            log,
        };
        worker.address = worker.lending();
        worker
    }

    /// The address that it says it lends on.
    fn lending(&mut self) -> SocketAddr {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            let said = log.split("lending address=").nth(1);
            if let Some((address, _)) = said.and_then(|said| said.split_once([' ', '\n'])) {
                return address.parse().unwrap();
            }
            assert!(
                self.child.try_wait().unwrap().is_none() && Instant::now() < deadline,
                "the worker does not lend:\n{log}"
            );
            // Another process: there is nothing to wait on but its word.
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it at once, as a machine that loses its power does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}
