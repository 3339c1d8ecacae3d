//! What the service manager is told: loading, ready, load, watchdog, stopping.
//!
//! Every call does nothing when `NOTIFY_SOCKET` is not set, so the rest of the program need not ask.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    future::pending,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::engine::{Busy, Pulse, Watch};

/// How often the status line may change when no watchdog sets the pace.
const CALM: Duration = Duration::from_secs(10);

/// The start goes on: systemd waits at least `patience` for the next word.
pub fn loading(status: &str, patience: Duration) {
    notify(&[extend(patience), NotifyState::Status(status)]);
}

/// A model has decoded and the sockets are open.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again. [`reloaded`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager could not be told"),
    }
}

pub fn reloaded() {
    notify(&[NotifyState::Ready]);
}

/// The stop was asked for and takes up to `patience`.
pub fn stopping(status: &str, patience: Duration) {
    notify(&[
        NotifyState::Stopping,
        extend(patience),
        NotifyState::Status(status),
    ]);
}

pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Feeds the watchdog while decode steps end in time, and keeps the status line true, for ever.
///
/// `stop`: cancelled when the drain begins, which changes the words. An idle engine is fed; one that has been inside a single step for the whole watchdog interval is
/// not. It runs among the HTTP tasks on purpose: if those are stuck, the watchdog must bite as well.
pub async fn tend(model: String, engine: Watch, stop: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let pulse = engine.pulse();
    let mut ticks = ticks(watchdog);
    let mut told = Busy::default();
    loop {
        tick(&mut ticks).await;
        if watchdog.is_some_and(|limit| is_alive(&pulse, limit)) {
            notify(&[NotifyState::Watchdog]);
        }
        let busy = engine.busy();
        if busy != told {
            let doing = if stop.is_cancelled() {
                "Draining"
            } else {
                "Serving"
            };
            status(&describe(doing, &model, busy));
            told = busy;
        }
    }
}

/// Waiting for work is life; a step that does not end is not.
fn is_alive(pulse: &Pulse, limit: Duration) -> bool {
    pulse.step_age() < limit
}

/// The status line of a serving process.
fn describe(doing: &str, model: &str, busy: Busy) -> String {
    match busy {
        Busy {
            queued: 0,
            running: 0,
        } => format!("{doing} {model}: idle"),
        Busy { queued, running } => format!("{doing} {model}: {running} running, {queued} queued"),
    }
}

/// A third of the watchdog interval; without a watchdog a calm pace, and no ticks when nobody listens.
fn ticks(watchdog: Option<Duration>) -> Option<Interval> {
    let listening = env::var_os("NOTIFY_SOCKET").is_some();
    let period = listening.then(|| watchdog.map_or(CALM, |limit| limit / 3))?;
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => pending().await,
    }
}

fn extend(patience: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(patience.as_micros()).unwrap_or(u32::MAX))
}

fn notify(states: &[NotifyState<'_>]) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, states)
    {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// As `sd_notify::notify`, which takes the `@` of an abstract socket for the first letter of a path.
fn send(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let mut lines = String::new();
    for state in states {
        let _ = writeln!(lines, "{state}");
    }
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_names_the_model_and_its_load() {
        assert_eq!(
            describe("Serving", "tiny", Busy::default()),
            "Serving tiny: idle"
        );
        assert_eq!(
            describe(
                "Serving",
                "tiny",
                Busy {
                    queued: 1,
                    running: 2
                }
            ),
            "Serving tiny: 2 running, 1 queued"
        );
    }

    #[test]
    fn an_engine_inside_one_step_for_the_whole_interval_is_not_alive_and_an_idle_one_is() {
        let pulse = Pulse::new();
        assert!(is_alive(&pulse, Duration::from_millis(1)));
        pulse.beat();
        assert!(is_alive(&pulse, Duration::from_hours(1)));
        assert!(!is_alive(&pulse, Duration::ZERO));
        pulse.waiting();
        assert!(is_alive(&pulse, Duration::from_millis(1)));
    }

    #[test]
    fn a_service_manager_behind_an_abstract_socket_hears_everything() {
        let name = format!("llm-server-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let states = [NotifyState::Ready, NotifyState::Status("Serving tiny")];
        send(OsStr::new(&format!("@{name}")), &states).unwrap();
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\nSTATUS=Serving tiny\n");
    }

    #[test]
    fn a_patience_beyond_the_protocol_s_range_is_cut_not_wrapped() {
        let day = extend(Duration::from_hours(24)).to_string();
        assert_eq!(day, format!("EXTEND_TIMEOUT_USEC={}", u32::MAX));
    }
}
