//! Which files were hashed before: a small text in the store, so that a start need not hash 20 GB again.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::Digest;

const FILE_NAME: &str = ".verified";

/// Oldest records fall out beyond this many.
const MOST: usize = 256;

/// File systems stamp changes with the kernel's tick (up to 10 ms): a file changed this recently
/// could change again under the same time, so what was seen of it is not remembered.
const TICK: Duration = Duration::from_millis(20);

/// A file as it was when it was hashed. Any change of its content changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
}

impl Mark {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let settled = now.saturating_sub(TICK).as_nanos();
        i128::try_from(settled).is_ok_and(|settled| self.modified_ns < settled)
    }
}

/// The records of one store, a line each: device, inode, size, modification time, digest.
pub(super) struct Seen {
    path: PathBuf,
}

impl Seen {
    pub(super) fn of_store(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE_NAME),
        }
    }

    /// The digest of a file that looks as it did when it was hashed.
    pub(super) fn recall(&self, mark: &Mark) -> Option<Digest> {
        self.records()
            .into_iter()
            .rev()
            .find(|(seen, _)| seen == mark)
            .map(|(_, digest)| digest)
    }

    /// Remembers a digest. The store may be read-only and two processes may write at once:
    /// what is lost is only hashed again.
    pub(super) fn remember(&self, mark: Mark, digest: Digest) {
        if !mark.is_settled() {
            return;
        }
        if let Err(error) = self.write(mark, digest) {
            tracing::debug!(path = %self.path.display(), %error, "verification is not remembered");
        }
    }

    fn write(&self, mark: Mark, digest: Digest) -> io::Result<()> {
        let mut records = self.records();
        records.retain(|(old, _)| (old.device, old.inode) != (mark.device, mark.inode));
        records.push((mark, digest));
        let spare = records.len().saturating_sub(MOST);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Digests are no secret: other users of the store may read them too.
        let readable = fs::Permissions::from_mode(0o644);
        let mut beside = tempfile::Builder::new()
            .permissions(readable)
            .tempfile_in(folder)?;
        for (mark, digest) in &records[spare..] {
            let Mark {
                device,
                inode,
                size,
                modified_ns,
            } = mark;
            writeln!(beside, "{device} {inode} {size} {modified_ns} {digest}")?;
        }
        beside.persist(&self.path)?;
        Ok(())
    }

    fn records(&self) -> Vec<(Mark, Digest)> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(record).collect()
    }
}

fn record(line: &str) -> Option<(Mark, Digest)> {
    let mut words = line.split(' ');
    let mark = Mark {
        device: words.next()?.parse().ok()?,
        inode: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        modified_ns: words.next()?.parse().ok()?,
    };
    Some((mark, words.next()?.parse().ok()?))
}
