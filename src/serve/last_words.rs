//! The end when the engine dies: open streams are told, the log and systemd too, then exit 70.
//!
//! llama.cpp's threads cannot be unwound once one of them would have aborted, so nothing here waits
//! for the engine, and nothing needs the HTTP runtime to be alive: a thread of its own sits and waits.

use std::{
    io,
    sync::{
        OnceLock,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::low_level;
use tokio::{runtime::Handle, sync::watch};

use crate::{api::Stage, cli::Exit, systemd};

/// How long open streams have to pass on the bad news.
const GRACE: Duration = Duration::from_millis(700);

static DEATH: OnceLock<SyncSender<String>> = OnceLock::new();

/// Tells the waiting thread that the engine died. Callable from any thread, also llama.cpp's own.
pub(crate) fn died(why: &str) {
    if let Some(death) = DEATH.get() {
        // Full: the first cause is already on its way.
        let _ = death.try_send(why.to_owned());
    }
}

/// Starts the thread that waits for [`died`]. `finish` lets all open connections end and waits for it.
pub(crate) fn prepare(
    runtime: Handle,
    stage: watch::Sender<Stage>,
    finish: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (sender, death) = mpsc::sync_channel(1);
    // A process serves once.
    let _ = DEATH.set(sender);
    thread::Builder::new()
        .name("last-words".into())
        .spawn(move || {
            if let Ok(why) = death.recv() {
                speak(why, &runtime, &stage, finish);
            }
        })?;
    Ok(())
}

fn speak(
    why: String,
    runtime: &Handle,
    stage: &watch::Sender<Stage>,
    finish: impl Future<Output = ()> + Send + 'static,
) -> ! {
    let deadline = Instant::now() + GRACE;
    if let Stage::Ready(service) = stage.send_replace(Stage::Failed) {
        let engine = service.work.watch();
        engine.halt();
        engine.give_up();
        // Freeing a model that a broken thread still uses would crash before the last word.
        std::mem::forget(service);
    }
    // A stuck journal or a stuck runtime must not hold up the exit, so both are left to others.
    let said = within(|done| {
        thread::spawn(move || {
            tracing::error!(why, "the engine died");
            systemd::status(&format!("The engine died: {why}"));
            let _ = done.send(());
        });
    });
    let told = within(|done| {
        runtime.spawn(async move {
            finish.await;
            let _ = done.send(());
        });
    });
    for end in [said, told] {
        let _ = end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    low_level::exit(Exit::EngineDied.into())
}

fn within(start: impl FnOnce(SyncSender<()>)) -> Receiver<()> {
    let (done, end) = mpsc::sync_channel(1);
    start(done);
    end
}

#[cfg(test)]
mod tests {
    use std::{env, future::pending, process::Command};

    use tokio::runtime::Builder;

    use super::*;

    /// Set in the process that is to die.
    const VICTIM: &str = "LLM_SERVER_TEST_VICTIM";

    #[test]
    fn death_ends_the_process_with_70_within_a_second_although_the_runtime_hangs() {
        if env::var_os(VICTIM).is_some() {
            die_with_a_stuck_runtime();
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!(
            "{module}::death_ends_the_process_with_70_within_a_second_although_the_runtime_hangs"
        );
        let began = Instant::now();
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", &name, "--test-threads", "1"])
            .env(VICTIM, "1")
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(70));
        // GRACE, and what a busy machine needs to start a process.
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }

    fn die_with_a_stuck_runtime() -> ! {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (stuck, is_stuck) = mpsc::channel();
        runtime.spawn(async move {
            stuck.send(()).unwrap();
            loop {
                thread::park();
            }
        });
        is_stuck.recv().unwrap();
        let (stage, _) = watch::channel(Stage::Loading { percent: 0 });
        prepare(runtime.handle().clone(), stage, pending()).unwrap();
        died("a test");
        loop {
            thread::park();
        }
    }
}
