//! Pictures to what a model takes in their place: a thread that computes them beside the engine's, and a cache of what it
//! has computed.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Token,
    media::{Image, ImageDigest, Prompt},
};

/// A decoded picture.
pub struct Picture {
    /// Of the file it came from.
    pub digest: ImageDigest,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// 3 bytes a pixel, row after row.
    pub rgb: Vec<u8>,
}

/// What stands in a prompt for a picture, in order.
#[derive(Debug)]
pub enum Segment {
    /// Such as marks around the image, or between its parts.
    Text(Vec<Token>),
    Image(Arc<Image>),
}

/// A picture as the model takes it.
pub type Seen = Arc<[Segment]>;

/// Why a picture could not be turned into that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// The picture's own fault, in words for the client.
    #[error("{0}")]
    Refused(String),
    #[error("the projector failed: {0}")]
    Failed(String),
    #[error("the projector's thread is gone")]
    Gone,
}

/// A cheap handle to the thread, which ends when the last one is dropped.
#[derive(Clone)]
pub struct Vision {
    requests: mpsc::UnboundedSender<Request>, // bounded by those who wait
    cache: Arc<Mutex<Cache>>,
}

struct Request {
    owner: u64,
    picture: Picture,
    tell: oneshot::Sender<Result<Seen, Unseen>>,
}

/// Starts the thread. `build` runs on it and returns what looks at pictures; this returns once it is built.
pub fn start<L, E>(
    cache_bytes: usize,
    build: impl FnOnce() -> Result<L, E> + Send + 'static,
) -> Result<Vision, E>
where
    L: FnMut(&Picture) -> Result<Vec<Segment>, Unseen>,
    E: Send + 'static,
{
    let (requests, mut inbox) = mpsc::unbounded_channel::<Request>();
    let cache = Arc::new(Mutex::new(Cache::new(cache_bytes)));
    let shared = Arc::clone(&cache);
    let ((), thread) = super::spawn("vision", move |first| {
        let mut look = match build() {
            Ok(look) => look,
            Err(error) => return drop(first.send(Err(error))),
        };
        if first.send(Ok(())).is_err() {
            return;
        }
        while let Some(request) = inbox.blocking_recv() {
            answer(request, &shared, &mut look);
        }
    })?;
    drop(thread); // it ends by itself
    Ok(Vision { requests, cache })
}

fn answer(
    request: Request,
    cache: &Mutex<Cache>,
    look: &mut impl FnMut(&Picture) -> Result<Vec<Segment>, Unseen>,
) {
    let Request {
        owner,
        picture,
        tell,
    } = request;
    if tell.is_closed() {
        return; // nobody waits any more
    }
    let key = (owner, picture.digest);
    // Another request may have brought the same picture meanwhile.
    let known = lock(cache).get(key);
    let outcome = match known {
        Some(seen) => Ok(seen),
        None => look(&picture)
            .map(Seen::from)
            .inspect(|seen| lock(cache).insert(key, seen)),
    };
    let _ = tell.send(outcome);
}

impl Vision {
    /// A picture that was seen before for the same `owner` of caches.
    pub fn known(&self, owner: u64, digest: ImageDigest) -> Option<Seen> {
        lock(&self.cache).get((owner, digest))
    }

    /// Computes a picture, unless it is known. Dropping the future gives up, unless it is being computed.
    pub async fn see(&self, owner: u64, picture: Picture) -> Result<Seen, Unseen> {
        self.ask(owner, picture)?.await.unwrap_or(Err(Unseen::Gone))
    }

    /// The same for a thread that may wait.
    pub fn see_now(&self, owner: u64, picture: Picture) -> Result<Seen, Unseen> {
        let told = self.ask(owner, picture)?;
        told.blocking_recv().unwrap_or(Err(Unseen::Gone))
    }

    fn ask(
        &self,
        owner: u64,
        picture: Picture,
    ) -> Result<oneshot::Receiver<Result<Seen, Unseen>>, Unseen> {
        let (tell, told) = oneshot::channel();
        let request = Request {
            owner,
            picture,
            tell,
        };
        self.requests.send(request).map_err(|_| Unseen::Gone)?;
        Ok(told)
    }

    /// Lets go of all that is kept.
    pub fn forget(&self) {
        let mut cache = lock(&self.cache);
        *cache = Cache::new(cache.budget);
    }

    /// Bytes of the pictures that are kept.
    pub fn kept_bytes(&self) -> usize {
        lock(&self.cache).bytes
    }
}

/// Puts what was seen into a prompt.
pub fn place(seen: &[Segment], prompt: &mut Prompt) {
    for segment in seen {
        match segment {
            Segment::Text(tokens) => prompt.text(tokens),
            Segment::Image(image) => prompt.image(image),
        }
    }
}

/// Nothing that is done under the lock can panic halfway.
fn lock(cache: &Mutex<Cache>) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose picture, and which.
type Key = (u64, ImageDigest);

/// Pictures within a budget; the longest unused go first.
struct Cache {
    budget: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<Key, Entry>,
}

struct Entry {
    seen: Seen,
    bytes: usize,
    used: u64,
}

impl Cache {
    fn new(budget: usize) -> Self {
        Self {
            budget,
            bytes: 0,
            clock: 0,
            entries: HashMap::new(),
        }
    }

    fn get(&mut self, key: Key) -> Option<Seen> {
        self.clock += 1;
        let entry = self.entries.get_mut(&key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.seen))
    }

    fn insert(&mut self, key: Key, seen: &Seen) {
        let bytes = bytes(seen);
        if bytes > self.budget {
            return;
        }
        while self.bytes + bytes > self.budget {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            self.remove(oldest);
        }
        self.remove(key);
        self.clock += 1;
        self.bytes += bytes;
        let entry = Entry {
            seen: Arc::clone(seen),
            bytes,
            used: self.clock,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
    }
}

/// What an entry takes: its numbers, and itself.
fn bytes(seen: &[Segment]) -> usize {
    let one = |segment: &Segment| match segment {
        Segment::Text(tokens) => size_of_val(&**tokens),
        Segment::Image(image) => image.bytes(),
    };
    size_of::<Entry>() + size_of::<Key>() + seen.iter().map(one).sum::<usize>()
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} × {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::media::{Attention, Layout};

    const ROW: usize = 1000;

    fn picture(name: u8) -> Picture {
        Picture {
            digest: [name; 32],
            width: 1,
            height: 1,
            rgb: vec![name; 3],
        }
    }

    /// Sees an image of one row of 4000 bytes; refuses picture 99. Counts how often it looks.
    fn vision(budget: usize) -> (Vision, Arc<AtomicUsize>) {
        let looks = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&looks);
        let vision = start(budget, move || {
            Ok::<_, std::io::Error>(move |picture: &Picture| {
                counter.fetch_add(1, Ordering::Relaxed);
                if picture.rgb[0] == 99 {
                    return Err(Unseen::Refused("too ugly".into()));
                }
                let numbers = vec![0.0; ROW];
                let (line, causal) = (Layout::Line, Attention::Causal);
                let image = Image::new(&picture.digest, 0, line, causal, ROW, numbers).unwrap();
                Ok(vec![
                    Segment::Text(vec![1]),
                    Segment::Image(Arc::new(image)),
                ])
            })
        });
        (vision.unwrap(), looks)
    }

    #[tokio::test]
    async fn a_picture_is_looked_at_once_for_each_owner_of_caches() {
        let (vision, looks) = vision(1 << 20);
        for _ in 0..3 {
            vision.see(1, picture(5)).await.unwrap();
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        assert!(vision.known(1, [5; 32]).is_some());
        assert!(vision.known(2, [5; 32]).is_none());
        vision.see(2, picture(5)).await.unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_kept_stays_in_its_budget_and_the_longest_unused_goes_first() {
        let (vision, _) = vision(3 * 4400);
        for name in [1, 2, 3] {
            vision.see(1, picture(name)).await.unwrap();
        }
        assert!(vision.known(1, [1; 32]).is_some());
        vision.see(1, picture(4)).await.unwrap();
        assert!(vision.kept_bytes() <= 3 * 4400);
        let kept = [1, 2, 3, 4].map(|name| vision.known(1, [name; 32]).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }

    #[tokio::test]
    async fn without_a_budget_nothing_is_kept_and_everything_is_seen() {
        let (vision, looks) = vision(0);
        vision.see(1, picture(1)).await.unwrap();
        vision.see(1, picture(1)).await.unwrap();
        assert_eq!((vision.kept_bytes(), looks.load(Ordering::Relaxed)), (0, 2));
    }

    #[tokio::test]
    async fn a_refused_picture_is_refused_and_the_next_one_is_seen() {
        let (vision, _) = vision(1 << 20);
        let refused = vision.see(1, picture(99)).await;
        assert_eq!(refused.unwrap_err(), Unseen::Refused("too ugly".into()));
        assert!(vision.see(1, picture(1)).await.is_ok());
    }

    #[test]
    fn what_was_seen_lies_in_the_prompt_in_its_order() {
        let image = |part| {
            let (line, causal) = (Layout::Line, Attention::Causal);
            Arc::new(Image::new(&[1; 32], part, line, causal, 1, vec![0.0; 2]).unwrap())
        };
        let seen = [
            Segment::Text(vec![10]),
            Segment::Image(image(0)),
            Segment::Text(vec![11]),
            Segment::Image(image(1)),
            Segment::Text(vec![12]),
        ];
        let mut prompt = Prompt::default();
        prompt.text(&[1]);
        place(&seen, &mut prompt);
        let text: Vec<_> = prompt.tokens.iter().map(|&token| token.max(-1)).collect();
        assert_eq!(text, [1, 10, -1, -1, 11, -1, -1, 12]);
        let places: Vec<_> = prompt.media.iter().map(|placed| placed.at).collect();
        assert_eq!(places, [2, 5]);
    }
}
