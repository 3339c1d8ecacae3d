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
        service.engine.halt();
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
