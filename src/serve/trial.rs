//! A trial of the projector in a process of its own: one that ends the process ends that one, and the server says so and
//! does not start.

use std::{
    env,
    io::{self, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cli::Exit,
    config::EngineConfig,
    engine::{
        fit::{self, Files, FitError},
        llama::LoadError,
        threads,
    },
};

/// The hidden command that looks and listens.
pub(crate) const COMMAND: &str = "trial-projector";

/// Longest time that the trial may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// Tries the projector, if there is one, on images and sounds of several shapes; nothing of it is opened in this process before.
/// The engine was prepared.
pub(crate) fn run(files: Files<'_>, config: &EngineConfig) -> Result<(), FitError> {
    let Some(projector) = files.projector else {
        return Ok(());
    };
    let refuse = |why: String| LoadError::File {
        path: projector.to_owned(),
        why,
    };
    let mut command = Command::new(env::current_exe().map_err(|error| refuse(error.to_string()))?);
    command.arg(COMMAND).arg("--model").arg(files.model);
    command.arg("--projector").arg(projector);
    command.args(["--threads", &threads::decoding(config).to_string()]);
    command.args(["--ubatch", &config.ubatch.to_string()]);
    if let Some(device) = fit::projector_gpu(config)? {
        command.args(["--device", &device]);
    }
    // The service manager talks with this process alone.
    for variable in [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
    ] {
        command.env_remove(variable);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let cannot = |error: io::Error| refuse(format!("the projector cannot be tried: {error}"));
    let mut child = command.spawn().map_err(cannot)?;
    let words = last_words(&mut child).map_err(cannot)?;
    let status = child.wait().map_err(cannot)?;
    let last = words.lines().last().unwrap_or_default();
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(Exit::BadModel) => Err(refuse(last.to_owned()).into()),
        _ => Err(refuse(format!(
            "a trial image or sound ended the process that tried it ({status}); its last words: {last:?}. This projector cannot \
             be used with this engine"
        ))
        .into()),
    }
}

/// What the child said until its end, which comes by itself or after [`PATIENCE`].
fn last_words(child: &mut Child) -> io::Result<String> {
    let pid = Pid::from_child(child);
    let (ended, end) = mpsc::channel::<()>();
    let watch = thread::Builder::new().name("trial".into()).spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("a trial takes longer than {PATIENCE:?}");
            let _ = kill_process(pid, Signal::KILL);
        }
    })?;
    let mut words = Vec::new();
    let read = child
        .stderr
        .take()
        .map_or(Ok(0), |mut stderr| stderr.read_to_end(&mut words));
    // The child is not waited for yet, so that its number is still its own.
    drop(ended);
    let _ = watch.join();
    read?;
    Ok(String::from_utf8_lossy(&words).trim().to_owned())
}
