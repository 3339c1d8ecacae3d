//! What surrounds the process: the service manager and the clock.

use std::{
    env,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::Finding;

pub(super) fn systemd() -> Finding {
    const SUBJECT: &str = "systemd";
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let Some(socket) = set("NOTIFY_SOCKET") else {
        if set("INVOCATION_ID").is_some() && set("JOURNAL_STREAM").is_some() {
            let cure = "Type=notify in the unit, so that it is told when the model answers";
            return Finding::warn(SUBJECT, "started by it, but it listens to no news", cure);
        }
        let running = Path::new("/run/systemd/system").exists();
        let found = if running {
            "runs this machine; this process is no service of it"
        } else {
            "does not run this machine"
        };
        return Finding::ok(SUBJECT, found);
    };
    // `@`: an abstract socket, which has no file.
    if !socket.starts_with('@') && !Path::new(&socket).exists() {
        let cure = "leave NOTIFY_SOCKET to the service manager; in a sandbox let the socket's folder be seen";
        return Finding::fail(SUBJECT, format!("its socket {socket} is not there"), cure);
    }
    let watchdog = set("WATCHDOG_USEC").and_then(|usec| usec.parse::<u64>().ok());
    let watchdog = watchdog.map_or("no watchdog".to_owned(), |usec| {
        format!("a watchdog of {} s", usec / 1_000_000)
    });
    let sockets = set("LISTEN_FDS").unwrap_or_else(|| "no".to_owned());
    Finding::ok(
        SUBJECT,
        format!("listens for news; {watchdog}, {sockets} sockets passed"),
    )
}

pub(super) fn clock() -> Finding {
    const SUBJECT: &str = "clock";
    let built = env::current_exe().and_then(|binary| binary.metadata()?.modified());
    judge(SystemTime::now(), built.unwrap_or(UNIX_EPOCH), SUBJECT)
}

/// A clock that stands before the program was made is wrong: certificates are not valid yet then.
fn judge(now: SystemTime, built: SystemTime, subject: &'static str) -> Finding {
    if now < built {
        return Finding::fail(
            subject,
            format!(
                "{} is before this program was made",
                httpdate::fmt_http_date(now)
            ),
            "set the clock (`timedatectl set-ntp true`): with a wrong one downloads fail and logs mislead",
        );
    }
    Finding::ok(subject, httpdate::fmt_http_date(now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn a_clock_that_stands_before_the_programs_making_is_wrong() {
        let built = UNIX_EPOCH + Duration::from_hours(500_000);
        let day = Duration::from_hours(24);
        assert_eq!(judge(built - day, built, "").verdict, Verdict::Fail);
        assert_eq!(judge(built + day, built, "").verdict, Verdict::Ok);
    }
}
