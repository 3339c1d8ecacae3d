//! How fast the model comes from its disk, measured past the page cache for two seconds at most.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Advice, OFlags, fadvise};

use super::Finding;
use crate::{lock::Store, report::size};

const SUBJECT: &str = "disk";
const LONGEST: Duration = Duration::from_secs(2);
const CHUNK: usize = 4 << 20;
/// What reads past the page cache must be aligned to, on any disk.
const ALIGNMENT: usize = 4096;
/// Written where there is no model to read.
const TRIAL_BYTES: usize = 64 << 20;
/// A start that takes longer is worth a word.
const SLOW: Duration = Duration::from_mins(1);

/// `None`: there is nothing to read and no place to write.
pub(super) fn finding(model_bytes: u64, file: Option<&Path>) -> Option<Finding> {
    let (bytes, time) = match file {
        Some(file) => read(file).ok()?,
        None => trial(Store::from_environment().ok()?.folder()).ok()?,
    };
    Some(judge(model_bytes, bytes as f64 / time.as_secs_f64()))
}

fn judge(model_bytes: u64, bytes_per_s: f64) -> Finding {
    let load =
        Duration::try_from_secs_f64(model_bytes as f64 / bytes_per_s).unwrap_or(Duration::MAX);
    let found = format!(
        "reads {:.0} MB/s: {} in about {}",
        bytes_per_s / 1e6,
        size(model_bytes),
        words(load)
    );
    if load <= SLOW {
        return Finding::ok(SUBJECT, found);
    }
    Finding::warn(
        SUBJECT,
        format!("{found}, at every start that finds it in no cache"),
        "keep models on a local solid-state disk: LLM_SERVER_MODELS names the folder",
    )
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        0 => "a second".to_owned(),
        seconds @ ..100 => format!("{} s", seconds + 1),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Bytes read from the file's beginning, and the time that took.
fn read(path: &Path) -> io::Result<(u64, Duration)> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let past_cache = OpenOptions::new()
        .read(true)
        .custom_flags(direct)
        .open(path);
    // Not every file system can: there, what is cached is let go first.
    let mut file = past_cache.or_else(|_| {
        let file = File::open(path)?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok::<_, io::Error>(file)
    })?;
    let mut room = vec![0; CHUNK + ALIGNMENT];
    let skip = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let chunk = &mut room[skip..skip + CHUNK];
    let (began, mut bytes) = (Instant::now(), 0);
    loop {
        let read = file.read(chunk)?;
        bytes += read as u64;
        let time = began.elapsed();
        if read < CHUNK || time >= LONGEST {
            return Ok((bytes, time.max(Duration::from_micros(1))));
        }
    }
}

/// Writes a file and reads it.
fn trial(folder: &Path) -> io::Result<(u64, Duration)> {
    let folder = folder
        .ancestors()
        .find(|folder| fs::metadata(folder).is_ok())
        .unwrap_or(folder);
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    // Not zeros: some disks do not store those.
    let chunk: Vec<u8> = (0..CHUNK)
        .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    for _ in 0..TRIAL_BYTES / CHUNK {
        file.write_all(&chunk)?;
    }
    file.as_file().sync_all()?;
    read(file.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn all_of_a_small_file_is_read_and_a_slow_disk_is_told_by_the_models_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        fs::write(&path, vec![7; 3 * ALIGNMENT + 5]).unwrap();
        assert_eq!(read(&path).unwrap().0, 3 * ALIGNMENT as u64 + 5);

        let slow = judge(20 << 30, 100e6);
        assert_eq!(slow.verdict, Verdict::Warn);
        assert!(
            slow.found.contains("20.0 GiB in about 4 min"),
            "{}",
            slow.found
        );
        assert_eq!(judge(100 << 20, 100e6).verdict, Verdict::Ok);
    }
}
