//! A state as a file: what it belongs to, whose it is, its tokens and bytes, and digests over all of it.
//!
//! llama.cpp's own format has no digest: it aborts on a file that is cut short and takes flipped bytes for numbers. So
//! nothing read here reaches it before it was found to be what was written, for this very context.
//!
//! Numbers are little-endian: magic (8 bytes), version (4), length of the front (8), front, SHA-256 of all that, states,
//! SHA-256 of the whole. The front alone says what could be taken up from the file.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{Identity, Saved};
use crate::engine::{
    Token,
    prefix::{Checkpoint, Prefix},
};

const MAGIC: &[u8; 8] = b"llmstate";
const VERSION: u32 = 1;
const HEAD: usize = 8 + 4 + 8;
const DIGEST: usize = 32;
/// Between two looks at the clock.
const CHUNK: usize = 1 << 20;
/// What unfinished files end with.
pub(super) const UNFINISHED: &str = ".unfinished";

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no saved state")]
    NotOne,
    #[error("it has version {0} of the format, and this server reads version {VERSION}")]
    Version(u32),
    #[error(
        "it is {found} bytes long instead of {expected}: it was cut short, or something was added"
    )]
    Length { found: u64, expected: u64 },
    #[error("it is damaged: what it holds is not what was written")]
    Damaged,
    #[error("it was saved by another server: {0}")]
    Foreign(String),
    #[error("there was no time left to write it")]
    Late,
}

/// What a file says before its states.
#[derive(Debug)]
pub(super) struct Front {
    /// Its checkpoints have places, and no states yet.
    pub(super) prefix: Prefix,
    /// Bytes of the state, and of each checkpoint.
    sizes: Vec<u64>,
    /// Bytes of the file.
    pub(super) length: u64,
}

/// Writes a state so that the file is either there and whole or not there. Gives its bytes.
pub(super) fn write(
    path: &Path,
    identity: &Identity,
    saved: &Saved,
    until: Option<Instant>,
) -> Result<u64, FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Only its owner may read it.
    let file = tempfile::Builder::new()
        .prefix(".")
        .suffix(UNFINISHED)
        .tempfile_in(folder)?;
    let mut out = Sealed {
        file,
        digest: Sha256::new(),
        length: 0,
        until,
    };
    let front = front(identity, saved);
    out.put(MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&(front.len() as u64).to_le_bytes())?;
    out.put(&front)?;
    out.seal()?;
    out.put(&saved.state)?;
    for checkpoint in &saved.prefix.checkpoints {
        out.put(&checkpoint.state)?;
    }
    out.seal()?;
    out.file.as_file().sync_all()?;
    out.file.persist(path).map_err(|failed| failed.error)?;
    File::open(folder)?.sync_all()?;
    Ok(out.length)
}

/// How many bytes [`write`] would write.
pub(super) fn length(identity: &Identity, saved: &Saved) -> u64 {
    (HEAD + front(identity, saved).len() + saved.bytes() + 2 * DIGEST) as u64
}

/// What the file at `path` says it holds, found to be said by who wrote it for this `identity`.
pub(super) fn read_front(path: &Path, identity: &Identity) -> Result<Front, FileError> {
    open(path, identity).map(|(_, _, front)| front)
}

/// All that the file at `path` holds, found to be what was written for this `identity`. Gives its bytes as well.
pub(super) fn read(path: &Path, identity: &Identity) -> Result<(Saved, u64), FileError> {
    let (mut file, mut digest, front) = open(path, identity)?;
    let mut states = Vec::with_capacity(front.sizes.len());
    for &size in &front.sizes {
        let mut state = vec![0; usize::try_from(size).map_err(|_| FileError::NotOne)?];
        for chunk in state.chunks_mut(CHUNK) {
            file.read_exact(chunk)?;
            digest.update(&*chunk);
        }
        states.push(Arc::new(state));
    }
    expect(&mut file, &digest)?;
    let mut states = states.into_iter();
    let state = states.next().ok_or(FileError::NotOne)?;
    let mut prefix = front.prefix;
    for (checkpoint, state) in prefix.checkpoints.iter_mut().zip(states) {
        checkpoint.state = state;
    }
    Ok((Saved { prefix, state }, front.length))
}

fn open(path: &Path, identity: &Identity) -> Result<(BufReader<File>, Sha256, Front), FileError> {
    // A pipe would never end.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::NotOne);
    }
    let file = File::open(path)?;
    let found = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let mut head = [0; HEAD];
    if found < (HEAD + 2 * DIGEST) as u64 {
        return Err(FileError::NotOne);
    }
    file.read_exact(&mut head)?;
    let mut fields = Fields(&head);
    if fields.take(MAGIC.len())? != MAGIC {
        return Err(FileError::NotOne);
    }
    let version = fields.u32()?;
    if version != VERSION {
        return Err(FileError::Version(version));
    }
    let length = fields.u64()?;
    if length > found {
        return Err(FileError::Damaged);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| FileError::Damaged)?];
    file.read_exact(&mut bytes).map_err(cut_short)?;
    let mut digest = Sha256::new().chain_update(head).chain_update(&bytes);
    expect(&mut file, &digest)?;
    let seal: [u8; DIGEST] = digest.clone().finalize().into();
    digest.update(seal);

    let (theirs, prefix, sizes) = parse(&bytes)?;
    if let Some(difference) = identity.difference(&theirs) {
        return Err(FileError::Foreign(difference));
    }
    let states = sizes
        .iter()
        .try_fold(0_u64, |sum, &size| sum.checked_add(size));
    let around = (HEAD + bytes.len() + 2 * DIGEST) as u64;
    let expected = states.and_then(|states| states.checked_add(around));
    let expected = expected.ok_or(FileError::Damaged)?;
    if expected != found {
        return Err(FileError::Length { found, expected });
    }
    let front = Front {
        prefix,
        sizes,
        length: found,
    };
    Ok((file, digest, front))
}

/// Reads a digest, which must be that of all before it.
fn expect(file: &mut impl Read, digest: &Sha256) -> Result<(), FileError> {
    let mut found = [0; DIGEST];
    file.read_exact(&mut found).map_err(cut_short)?;
    let expected: [u8; DIGEST] = digest.clone().finalize().into();
    if found == expected {
        Ok(())
    } else {
        Err(FileError::Damaged)
    }
}

fn cut_short(error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FileError::Damaged,
        _ => FileError::Io(error),
    }
}

/// Identity, owner, solid tokens, tokens, sizes of states.
fn front(identity: &Identity, saved: &Saved) -> Vec<u8> {
    let Saved { prefix, state } = saved;
    let mut out = Vec::with_capacity(1024 + size_of_val(&*prefix.tokens));
    let count = |out: &mut Vec<u8>, count: usize| out.extend((count as u64).to_le_bytes());
    count(&mut out, identity.0.len());
    for text in identity.0.iter().flat_map(|(name, value)| [name, value]) {
        count(&mut out, text.len());
        out.extend(text.as_bytes());
    }
    out.push(u8::from(prefix.tenant.is_some()));
    out.extend(prefix.tenant.unwrap_or(0).to_le_bytes());
    count(&mut out, prefix.solid);
    count(&mut out, prefix.tokens.len());
    out.extend(prefix.tokens.iter().flat_map(|token| token.to_le_bytes()));
    count(&mut out, state.len());
    count(&mut out, prefix.checkpoints.len());
    for checkpoint in &prefix.checkpoints {
        count(&mut out, checkpoint.at);
        count(&mut out, checkpoint.state.len());
    }
    out
}

/// What [`front`] made, which a digest vouches for.
fn parse(bytes: &[u8]) -> Result<(Identity, Prefix, Vec<u64>), FileError> {
    let mut fields = Fields(bytes);
    let mut facts = Vec::new();
    for _ in 0..fields.count()? {
        facts.push((fields.text()?, fields.text()?));
    }
    let is_owned = fields.take(1)? == [1];
    let tenant = fields.u64()?;
    let solid = fields.count()?;
    let count = fields.count()?;
    let (words, _) = fields.take(count.saturating_mul(4))?.as_chunks();
    let tokens: Vec<_> = words
        .iter()
        .map(|&word| Token::from_le_bytes(word))
        .collect();
    let mut sizes = vec![fields.u64()?];
    let mut checkpoints = Vec::new();
    for _ in 0..fields.count()? {
        let at = fields.count()?;
        checkpoints.push(Checkpoint {
            at,
            state: Arc::default(),
        });
        sizes.push(fields.u64()?);
    }
    let places = checkpoints.iter().map(|checkpoint| checkpoint.at);
    let sound = solid <= tokens.len()
        && places.clone().is_sorted()
        && places.into_iter().all(|at| at <= tokens.len());
    if !sound || !fields.0.is_empty() {
        return Err(FileError::NotOne);
    }
    let prefix = Prefix {
        tokens,
        tenant: is_owned.then_some(tenant),
        solid,
        checkpoints,
    };
    Ok((Identity(facts), prefix, sizes))
}

/// Bytes that are read field by field.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FileError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(FileError::NotOne)?;
        self.0 = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, FileError> {
        let bytes = self.take(4)?.first_chunk().ok_or(FileError::NotOne)?;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, FileError> {
        let bytes = self.take(8)?.first_chunk().ok_or(FileError::NotOne)?;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn count(&mut self) -> Result<usize, FileError> {
        usize::try_from(self.u64()?).map_err(|_| FileError::NotOne)
    }

    fn text(&mut self) -> Result<String, FileError> {
        let length = self.count()?;
        let text = str::from_utf8(self.take(length)?).map_err(|_| FileError::NotOne)?;
        Ok(text.to_owned())
    }
}

/// A file under way, with the digest of what was written.
struct Sealed {
    file: NamedTempFile,
    digest: Sha256,
    length: u64,
    until: Option<Instant>,
}

impl Sealed {
    fn put(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        for chunk in bytes.chunks(CHUNK) {
            if self.until.is_some_and(|until| Instant::now() > until) {
                return Err(FileError::Late);
            }
            self.file.write_all(chunk)?;
            self.digest.update(chunk);
            self.length += chunk.len() as u64;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), FileError> {
        let digest: [u8; DIGEST] = self.digest.clone().finalize().into();
        self.put(&digest)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use tempfile::TempDir;

    use super::*;

    fn identity() -> Identity {
        Identity::new([("model", "m".into()), ("keys", "f16".into())])
    }

    fn saved() -> Saved {
        let checkpoint = |at: usize| Checkpoint {
            at,
            state: Arc::new(vec![7; at]),
        };
        Saved {
            prefix: Prefix {
                tokens: vec![1, 2, 3, i32::MIN | 9],
                tenant: Some(0x0123_4567_89ab_cdef),
                solid: 3,
                checkpoints: vec![checkpoint(1), checkpoint(3)],
            },
            state: Arc::new((0..100).collect()),
        }
    }

    fn written() -> (TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        let length = write(&path, &identity(), &saved(), None).unwrap();
        assert_eq!(length, fs::metadata(&path).unwrap().len());
        assert_eq!(length, super::length(&identity(), &saved()));
        (folder, path)
    }

    #[test]
    fn what_is_read_is_what_was_written_and_only_its_owner_may_read_it() {
        let (_folder, path) = written();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let (read, _) = read(&path, &identity()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", saved()));
        let front = read_front(&path, &identity()).unwrap();
        assert_eq!(front.prefix.tokens, saved().prefix.tokens);
        let places: Vec<_> = front.prefix.checkpoints.iter().map(|one| one.at).collect();
        assert_eq!(places, [1, 3]);
    }

    #[test]
    fn every_flipped_bit_and_every_length_but_the_right_one_is_refused() {
        let (_folder, path) = written();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, bytes).unwrap();
                assert!(read(&path, &identity()).is_err(), "bit {bit} of byte {at}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path, &identity()).is_err(), "cut after {at} bytes");
        }
        fs::write(&path, [&*whole, b"x"].concat()).unwrap();
        assert!(matches!(
            read(&path, &identity()),
            Err(FileError::Length { .. })
        ));
        fs::write(&path, &whole).unwrap();
        assert!(read(&path, &identity()).is_ok());
    }

    #[test]
    fn a_file_of_another_server_is_named_as_such() {
        let (_folder, path) = written();
        let other = Identity::new([("model", "m".into()), ("keys", "q8_0".into())]);
        let why = read(&path, &other).unwrap_err().to_string();
        assert_eq!(
            why,
            "it was saved by another server: `keys` is f16 there and q8_0 here"
        );
        let newer = [MAGIC, &2_u32.to_le_bytes()[..], &[0; 200]].concat();
        fs::write(&path, newer).unwrap();
        assert!(matches!(
            read(&path, &identity()),
            Err(FileError::Version(2))
        ));
    }

    #[test]
    fn what_is_late_or_fails_leaves_nothing_and_harms_no_earlier_file() {
        let (folder, path) = written();
        let late = Instant::now().checked_sub(Duration::from_secs(1));
        let outcome = write(&path, &identity(), &saved(), late);
        assert!(matches!(outcome, Err(FileError::Late)), "{outcome:?}");
        assert!(read(&path, &identity()).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
