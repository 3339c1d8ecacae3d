//! Pictures and sounds to what a model takes in their place: a thread that computes them beside the engine's, and a cache
//! of what it has computed.

mod cache;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use self::cache::Cache;
use super::{
    Token,
    media::{Image, MediumDigest, Prompt},
};

/// Shorter sounds are not taken: there are encoders that assert on what gives them no frame. OpenAI has the same bound.
pub const SHORTEST_SOUND: Duration = Duration::from_millis(100);

/// What a model can be shown or played.
#[derive(Debug)]
pub enum Medium {
    Picture(Picture),
    Sound(Sound),
}

/// A decoded picture.
pub struct Picture {
    /// Of the file it came from.
    pub digest: MediumDigest,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// 3 bytes a pixel, row after row.
    pub rgb: Vec<u8>,
}

/// A decoded sound of one channel.
pub struct Sound {
    /// Of the file it came from.
    pub digest: MediumDigest,
    /// From -1 to 1, as many a second as [`Senses::hears`] says.
    pub samples: Vec<f32>,
}

/// What a projector can perceive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faculties {
    pub sees: bool,
    /// Samples a second of the sounds that it hears; `None`: it hears none.
    pub hears: Option<u32>,
}

/// What stands in a prompt for a picture or a sound, in order.
#[derive(Debug)]
pub enum Segment {
    /// Such as marks around it, or between its parts.
    Text(Vec<Token>),
    Image(Arc<Image>),
}

/// A picture or a sound as the model takes it.
pub type Perceived = Arc<[Segment]>;

/// Why a picture or a sound could not be turned into that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unperceived {
    /// Its own fault, in words for the client.
    #[error("{0}")]
    Refused(String),
    #[error("the projector failed: {0}")]
    Failed(String),
    #[error("the projector's thread is gone")]
    Gone,
}

/// A cheap handle to the thread, which ends when the last one is dropped.
#[derive(Clone)]
pub struct Senses {
    requests: mpsc::UnboundedSender<Request>, // bounded by those who wait
    cache: Arc<Mutex<Cache>>,
    faculties: Faculties,
}

struct Request {
    owner: u64,
    medium: Medium,
    tell: oneshot::Sender<Result<Perceived, Unperceived>>,
}

/// Starts the thread. `build` runs on it and returns what perceives and what that is able to; this returns once it is
/// built.
pub fn start<P, E>(
    cache_bytes: usize,
    build: impl FnOnce() -> Result<(Faculties, P), E> + Send + 'static,
) -> Result<Senses, E>
where
    P: FnMut(&Medium) -> Result<Vec<Segment>, Unperceived>,
    E: Send + 'static,
{
    let (requests, mut inbox) = mpsc::unbounded_channel::<Request>();
    let cache = Arc::new(Mutex::new(Cache::new(cache_bytes)));
    let shared = Arc::clone(&cache);
    let (faculties, thread) = super::spawn("senses", move |first| {
        let mut perceive = match build() {
            Ok((faculties, perceive)) => {
                if first.send(Ok(faculties)).is_err() {
                    return;
                }
                perceive
            }
            Err(error) => return drop(first.send(Err(error))),
        };
        while let Some(request) = inbox.blocking_recv() {
            answer(request, &shared, &mut perceive);
        }
    })?;
    drop(thread); // it ends by itself
    Ok(Senses {
        requests,
        cache,
        faculties,
    })
}

fn answer(
    request: Request,
    cache: &Mutex<Cache>,
    perceive: &mut impl FnMut(&Medium) -> Result<Vec<Segment>, Unperceived>,
) {
    let Request {
        owner,
        medium,
        tell,
    } = request;
    if tell.is_closed() {
        return; // nobody waits any more
    }
    let key = (owner, medium.digest());
    // Another request may have brought the same one meanwhile.
    let known = lock(cache).get(key);
    let outcome = match known {
        Some(perceived) => Ok(perceived),
        None => perceive(&medium)
            .map(Perceived::from)
            .inspect(|perceived| lock(cache).insert(key, perceived)),
    };
    let _ = tell.send(outcome);
}

impl Senses {
    pub fn sees(&self) -> bool {
        self.faculties.sees
    }

    /// Samples a second of the sounds that it hears; `None`: it hears none.
    pub fn hears(&self) -> Option<u32> {
        self.faculties.hears
    }

    /// What was perceived before for the same `owner` of caches.
    pub fn known(&self, owner: u64, digest: MediumDigest) -> Option<Perceived> {
        lock(&self.cache).get((owner, digest))
    }

    /// Computes a picture or a sound, unless it is known. Dropping the future gives up, unless it is being computed.
    pub async fn perceive(&self, owner: u64, medium: Medium) -> Result<Perceived, Unperceived> {
        let told = self.ask(owner, medium)?;
        told.await.unwrap_or(Err(Unperceived::Gone))
    }

    /// The same for a thread that may wait.
    pub fn perceive_now(&self, owner: u64, medium: Medium) -> Result<Perceived, Unperceived> {
        let told = self.ask(owner, medium)?;
        told.blocking_recv().unwrap_or(Err(Unperceived::Gone))
    }

    fn ask(
        &self,
        owner: u64,
        medium: Medium,
    ) -> Result<oneshot::Receiver<Result<Perceived, Unperceived>>, Unperceived> {
        let (tell, told) = oneshot::channel();
        let request = Request {
            owner,
            medium,
            tell,
        };
        self.requests.send(request).map_err(|_| Unperceived::Gone)?;
        Ok(told)
    }

    /// Lets go of all that is kept.
    pub fn forget(&self) {
        lock(&self.cache).clear();
    }

    /// Bytes of what is kept.
    pub fn kept_bytes(&self) -> usize {
        lock(&self.cache).bytes()
    }
}

impl Medium {
    fn digest(&self) -> MediumDigest {
        match self {
            Self::Picture(picture) => picture.digest,
            Self::Sound(sound) => sound.digest,
        }
    }
}

/// Puts what was perceived into a prompt.
pub fn place(perceived: &[Segment], prompt: &mut Prompt) {
    for segment in perceived {
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

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} × {})", self.width, self.height)
    }
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({} samples)", self.samples.len())
    }
}

#[cfg(test)]
mod tests;
