//! Signals: the first SIGTERM or SIGINT asks for a drain, the second ends the process at once, and SIGHUP reloads.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGXFSZ},
    flag,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::reload::Reload;

/// Cancels `stop` on the first SIGTERM or SIGINT. Call inside the runtime.
///
/// The second one exits from within the signal handler, with 128 plus its number, so that it works
/// also when every thread hangs. SIGHUP asks for a reload.
pub(crate) fn watch(stop: CancellationToken, reload: Reload) -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        // Handlers run in the order of registration: look at the flag first, then set it.
        flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&asked))?;
        flag::register(number, Arc::clone(&asked))?;
    }
    // Its default action would end the process where a full disk only costs a line of the recording: with any handler the
    // write fails instead.
    flag::register(SIGXFSZ, Arc::default())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    // Apart from the stop, which a reload must not hold up: a key file may be a pipe that nobody writes to.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = reload.run() => {}
            }
        }
    });
    Ok(())
}
