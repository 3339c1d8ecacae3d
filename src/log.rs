//! Log lines: structured into the journal under systemd, readable on stderr otherwise.

mod lines;
mod stderr;

use std::{
    env,
    io::{self, IsTerminal},
    sync::OnceLock,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use self::{lines::Lines, stderr::Stderr};

/// What lets events through.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{setting} = \"{filter}\" is not a log filter: {cause} (accepted: `warn`, `info`, `debug`, or `info,llm_server=debug`)"
    )]
    Filter {
        setting: &'static str,
        filter: String,
        cause: String,
    },
}

/// Starts logging for the whole process. `RUST_LOG`, if set, wins over `level` (`log.level`).
///
/// llama.cpp speaks as target `llama`; it is chatty, so it is heard from `warn` on unless named.
pub fn start(level: &str) -> Result<(), LogError> {
    let filter = match env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => parse("RUST_LOG", &filter)?,
        _ => parse("log.level", level)?,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry();
    match stderr_is_journal().then(tracing_journald::layer) {
        Some(Ok(journal)) => registry.with(journal.with_field_prefix(None).with_filter(filter)).try_init(),
        // The journal's socket may be out of reach (a sandbox); it stamps our lines all the same.
        Some(Err(_)) => registry.with(plain().without_time().with_filter(filter)).try_init(),
        None => registry.with(plain().with_filter(filter)).try_init(),
    }
    // A second call (tests in one process) keeps the first subscriber.
    .or(Ok(()))
}

/// Takes another `log.level` from now on, unless `RUST_LOG` is set.
pub fn change(level: &str) -> Result<(), LogError> {
    let filter = parse("log.level", level)?;
    let own = env::var("RUST_LOG").is_ok_and(|filter| !filter.is_empty());
    if let (false, Some(handle)) = (own, FILTER.get()) {
        // Only a subscriber that is gone refuses.
        let _ = handle.reload(filter);
    }
    Ok(())
}

fn parse(setting: &'static str, filter: &str) -> Result<EnvFilter, LogError> {
    // Of two directives for one target the later wins, so the user's own `llama=…` does.
    EnvFilter::builder()
        .parse(format!("llama=warn,{filter}"))
        .map_err(|cause| LogError::Filter {
            setting,
            filter: filter.to_owned(),
            cause: cause.to_string(),
        })
}

fn plain<S>() -> fmt::Layer<S, Lines, fmt::format::Format, fn() -> Stderr>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    fmt::layer()
        .fmt_fields(Lines)
        .with_writer((|| Stderr) as fn() -> Stderr)
        .with_ansi(colour)
}

/// systemd sets `JOURNAL_STREAM` to the device and inode of the stream it gave us; a child whose
/// stderr was redirected inherits the variable but not the stream, so both must agree.
fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// For tests: everything that this thread logs while `during` runs, a line an event, without times and colours.
#[cfg(test)]
pub(crate) fn captured(during: impl FnOnce()) -> String {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, during);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_names_its_setting() {
        let error = parse("log.level", "llm_server=loud")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("log.level = \"llm_server=loud\" is not"),
            "{error}"
        );
    }

    #[test]
    fn llama_is_quiet_unless_it_is_named() {
        assert_eq!(
            parse("log.level", "info").unwrap().to_string(),
            "llama=warn,info"
        );
        assert_eq!(
            parse("log.level", "info,llama=debug").unwrap().to_string(),
            "llama=debug,info"
        );
    }
}
