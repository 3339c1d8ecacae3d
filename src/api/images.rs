//! Images and sounds in messages: taken out of the request, decoded, perceived by the projector, and put where they stood.

mod decode;
mod internet;
mod ready;
mod remote;
mod source;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

pub use self::internet::Internet;
use self::{
    decode::Detail,
    source::{EXPECTED, Source},
};
pub(super) use self::{ready::Ready, remote::Remote};
use super::{
    audio::{self, Undecoded},
    error::ApiError,
    random,
};
use crate::{
    config::Limits,
    engine::{
        media::MediumDigest,
        senses::{Medium, Perceived, Senses, Sound, Unperceived},
    },
};

/// Pictures and sounds decoded at the same time: each may take some hundred MiB.
static DECODERS: Semaphore = Semaphore::const_new(2);

/// The images and sounds of a request, in order.
pub(super) struct Images {
    /// Begins the marks that stand for them in the messages; no client can know it.
    mark: String,
    sent: Vec<Sent>,
}

/// An image or a sound as it came.
struct Sent {
    /// The field that it came in.
    path: String,
    source: Source,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image(Detail),
    Sound,
}

impl Images {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            mark: format!("media{:016x}{:016x}n", random(), random()),
            sent: Vec::new(),
        }
    }

    /// A sound that came in the field `path`: what stands for it in a text of a message.
    pub(super) fn sound(&mut self, path: &str, file: Vec<u8>) -> String {
        self.add(Sent {
            path: path.to_owned(),
            source: Source::File(file),
            kind: Kind::Sound,
        })
    }

    /// Takes the images and sounds out of the messages and leaves marks in their places.
    pub(super) fn take(
        body: &mut Map<String, Value>,
        senses: Option<&Senses>,
        limits: &Limits,
        remote: &Remote,
    ) -> Result<Self, ApiError> {
        let sees = senses.is_some_and(Senses::sees);
        let hears = senses.is_some_and(|senses| senses.hears().is_some());
        let mut images = Self::new();
        let messages = body.get_mut("messages").and_then(Value::as_array_mut);
        for (i, message) in messages.into_iter().flatten().enumerate() {
            if message["role"] == "assistant" {
                continue; // it says nothing but text
            }
            let parts = message.get_mut("content").and_then(Value::as_array_mut);
            for (j, part) in parts.into_iter().flatten().enumerate() {
                let path = format!("messages[{i}].content[{j}]");
                match part["type"].as_str() {
                    Some("image_url") if !sees => {
                        return Err(refused(path, "this model takes no images"));
                    }
                    Some("image_url") => {
                        let text = images.add(Sent::parse(&path, part, limits, remote)?);
                        let most = limits.images;
                        if images.count(|kind| kind != Kind::Sound) > most as usize {
                            let why =
                                format!("more than the {most} images that a request may have");
                            return Err(refused(path, &why));
                        }
                        *part = json!({"type": "media_marker", "text": text});
                    }
                    Some("input_audio") if !hears => {
                        let takes = if sees { "text and images" } else { "text" };
                        let why = format!("this model takes no audio, only {takes}");
                        return Err(refused(path, &why));
                    }
                    Some("input_audio") => {
                        let file = audio::file(&path, part, limits)?;
                        let text = images.sound(&format!("{path}.input_audio.data"), file);
                        let most = limits.audio;
                        if images.count(|kind| kind == Kind::Sound) > most as usize {
                            let why =
                                format!("more than the {most} sounds that a request may have");
                            return Err(refused(path, &why));
                        }
                        *part = json!({"type": "media_marker", "text": text});
                    }
                    // Ours alone.
                    Some("media_marker") => {
                        return Err(refused(
                            format!("{path}.type"),
                            r#"expected "text", "image_url" or "input_audio", got "media_marker""#,
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(images)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// What stands for it.
    fn add(&mut self, sent: Sent) -> String {
        let number = self.sent.len();
        self.sent.push(sent);
        format!("{}{number}e", self.mark)
    }

    fn count(&self, of: impl Fn(Kind) -> bool) -> usize {
        self.sent.iter().filter(|sent| of(sent.kind)).count()
    }

    /// Decodes the images and sounds and perceives them. `owner`: whose cache may be read and written.
    pub(super) async fn perceive(
        self,
        senses: &Senses,
        owner: u64,
        limits: &Limits,
        remote: &Arc<Remote>,
    ) -> Result<Ready, ApiError> {
        let mut images = Vec::with_capacity(self.sent.len());
        for sent in self.sent {
            let path = sent.path.clone();
            let perceived = sent.perceive(senses, owner, limits, remote).await?;
            images.push((path, perceived));
        }
        Ok(Ready {
            mark: self.mark,
            images,
        })
    }
}

impl Sent {
    fn parse(path: &str, part: &Value, limits: &Limits, remote: &Remote) -> Result<Self, ApiError> {
        let field = &part["image_url"];
        // Some clients leave the object around the URL out.
        let (url, path_of_url) = match field {
            Value::String(url) => (Some(url.as_str()), format!("{path}.image_url")),
            _ => (field["url"].as_str(), format!("{path}.image_url.url")),
        };
        let detail = match field.get("detail") {
            None => Detail::Full,
            Some(detail) => Detail::parse(detail).ok_or_else(|| {
                let path = format!("{path}.image_url.detail");
                refused(path, r#"expected "auto", "low", "high" or "original""#)
            })?,
        };
        let source = match url.map(|url| Source::read(url, limits, remote)) {
            Some(Ok(source)) => source,
            Some(Err(why)) => return Err(refused(path_of_url, &why)),
            None => return Err(refused(path_of_url, &format!("expected {EXPECTED}"))),
        };
        Ok(Self {
            path: path_of_url,
            source,
            kind: Kind::Image(detail),
        })
    }

    async fn perceive(
        self,
        senses: &Senses,
        owner: u64,
        limits: &Limits,
        remote: &Arc<Remote>,
    ) -> Result<Perceived, ApiError> {
        let Self { path, source, kind } = self;
        let file = match source {
            Source::File(file) => file,
            Source::Address(url) => {
                let fetched = remote.fetch(url, limits.image_bytes, limits.queue_wait);
                let fetched = fetched.await?;
                fetched.map_err(|why| refused(path.clone(), &why.to_string()))?
            }
        };
        let busy = || ApiError::Images(limits.queue_wait);
        let place = timeout(limits.queue_wait, DECODERS.acquire());
        let _place = place.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let (most_pixels, longest) = (limits.image_pixels, limits.audio_length);
        let own = senses.clone();
        let decoded = spawn_blocking(move || {
            let digest = digest(&file, kind);
            if let Some(perceived) = own.known(owner, digest) {
                return Ok(Decoded::Known(perceived));
            }
            let medium = match kind {
                Kind::Image(detail) => decode::picture(&file, digest, detail, most_pixels)
                    .map(Medium::Picture)
                    .map_err(|error| error.to_string())?,
                Kind::Sound => {
                    let rate = own.hears().ok_or("this model takes no audio")?;
                    let samples = audio::samples(&file, rate, longest);
                    let samples = samples.map_err(|error: Undecoded| error.to_string())?;
                    Medium::Sound(Sound { digest, samples })
                }
            };
            Ok::<_, String>(Decoded::Anew(medium))
        });
        let decoded = decoded
            .await
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        let medium = match decoded {
            Ok(Decoded::Known(perceived)) => return Ok(perceived),
            Ok(Decoded::Anew(medium)) => medium,
            Err(why) => return Err(refused(path, &why)),
        };
        let perceived = timeout(limits.request, senses.perceive(owner, medium));
        match perceived.await {
            Err(_) => Err(ApiError::Deadline(limits.request)),
            Ok(Ok(perceived)) => Ok(perceived),
            Ok(Err(Unperceived::Refused(why))) => Err(refused(path, &why)),
            Ok(Err(why @ (Unperceived::Failed(_) | Unperceived::Gone))) => {
                Err(ApiError::Internal(why.to_string()))
            }
        }
    }
}

enum Decoded {
    Known(Perceived),
    Anew(Medium),
}

/// What the model perceives depends on the file and on how much of it was asked for.
fn digest(file: &[u8], kind: Kind) -> MediumDigest {
    let kind = match kind {
        Kind::Image(Detail::Full) => 0,
        Kind::Image(Detail::Low) => 1,
        Kind::Sound => 2,
    };
    Sha256::new()
        .chain_update([kind])
        .chain_update(file)
        .finalize()
        .into()
}

pub(super) fn refused(path: impl Into<String>, why: &str) -> ApiError {
    let path = path.into();
    let message = format!("{path}: {why}");
    ApiError::invalid(path, message)
}

#[cfg(test)]
mod tests;
