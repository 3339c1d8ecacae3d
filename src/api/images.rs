//! Images in messages: taken out of the request, decoded, seen through the projector, and put where they stood.

mod decode;
mod internet;
mod remote;
mod source;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

pub use self::internet::Internet;
pub(super) use self::remote::Remote;
use self::{
    decode::Detail,
    source::{EXPECTED, Source},
};
use super::{error::ApiError, random};
use crate::{
    config::Limits,
    engine::{
        Token,
        media::{ImageDigest, Prompt},
        model::Vocab,
        vision::{self, Seen, Unseen, Vision},
    },
};

/// Pictures decoded at the same time: each may take some hundred MiB.
static DECODERS: Semaphore = Semaphore::const_new(2);

/// The images of a request, in order.
pub(super) struct Images {
    /// Begins the marks that stand for them in the messages; no client can know it.
    mark: String,
    sent: Vec<Sent>,
}

/// An image as it came.
struct Sent {
    /// The field that it came in.
    path: String,
    source: Source,
    detail: Detail,
}

/// The images of a request as the model takes them.
pub(super) struct Ready {
    mark: String,
    images: Vec<(String, Seen)>,
}

impl Images {
    /// Takes the images out of the messages and leaves marks in their places.
    pub(super) fn take(
        body: &mut Map<String, Value>,
        vision: Option<&Vision>,
        limits: &Limits,
        remote: &Remote,
    ) -> Result<Self, ApiError> {
        let mut images = Self {
            mark: format!("media{:016x}{:016x}n", random(), random()),
            sent: Vec::new(),
        };
        let messages = body.get_mut("messages").and_then(Value::as_array_mut);
        for (i, message) in messages.into_iter().flatten().enumerate() {
            if message["role"] == "assistant" {
                continue; // it says nothing but text
            }
            let parts = message.get_mut("content").and_then(Value::as_array_mut);
            for (j, part) in parts.into_iter().flatten().enumerate() {
                let path = format!("messages[{i}].content[{j}]");
                match part["type"].as_str() {
                    Some("image_url") if vision.is_none() => {
                        return Err(refused(path, "this model takes no images"));
                    }
                    Some("image_url") => {
                        let sent = Sent::parse(&path, part, limits, remote)?;
                        let text = images.mark_of(images.sent.len());
                        images.sent.push(sent);
                        if images.sent.len() > limits.images as usize {
                            let most = limits.images;
                            let why =
                                format!("more than the {most} images that a request may have");
                            return Err(refused(path, &why));
                        }
                        *part = json!({"type": "media_marker", "text": text});
                    }
                    Some("input_audio") => {
                        return Err(refused(path, "this model takes no audio"));
                    }
                    // Ours alone.
                    Some("media_marker") => {
                        return Err(refused(
                            format!("{path}.type"),
                            r#"expected "text" or "image_url", got "media_marker""#,
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

    fn mark_of(&self, number: usize) -> String {
        format!("{}{number}e", self.mark)
    }

    /// Decodes the images and sees them. `owner`: whose cache may be read and written.
    pub(super) async fn see(
        self,
        vision: &Vision,
        owner: u64,
        limits: &Limits,
        remote: &Arc<Remote>,
    ) -> Result<Ready, ApiError> {
        let mut images = Vec::with_capacity(self.sent.len());
        for sent in self.sent {
            let path = sent.path.clone();
            let seen = sent.see(vision, owner, limits, remote).await?;
            images.push((path, seen));
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
            detail,
        })
    }

    async fn see(
        self,
        vision: &Vision,
        owner: u64,
        limits: &Limits,
        remote: &Arc<Remote>,
    ) -> Result<Seen, ApiError> {
        let Self {
            path,
            source,
            detail,
        } = self;
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
        let most_pixels = limits.image_pixels;
        let own = vision.clone();
        let decoded = spawn_blocking(move || {
            let digest = digest(&file, detail);
            match own.known(owner, digest) {
                Some(seen) => Ok(Looked::Known(seen)),
                None => decode::picture(&file, digest, detail, most_pixels).map(Looked::At),
            }
        });
        let decoded = decoded
            .await
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        let picture = match decoded {
            Ok(Looked::Known(seen)) => return Ok(seen),
            Ok(Looked::At(picture)) => picture,
            Err(undecoded) => return Err(refused(path, &undecoded.to_string())),
        };
        let seen = timeout(limits.request, vision.see(owner, picture));
        match seen.await {
            Err(_) => Err(ApiError::Deadline(limits.request)),
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(Unseen::Refused(why))) => Err(refused(path, &why)),
            Ok(Err(unseen @ (Unseen::Failed(_) | Unseen::Gone))) => {
                Err(ApiError::Internal(unseen.to_string()))
            }
        }
    }
}

enum Looked {
    Known(Seen),
    At(vision::Picture),
}

impl Ready {
    /// For a request without images.
    pub(super) fn none() -> Self {
        Self {
            mark: String::new(),
            images: Vec::new(),
        }
    }

    /// The rendered prompt's tokens, with the images where their marks stand.
    pub(super) fn prompt(&self, text: &str, vocab: &dyn Vocab) -> Result<Prompt, ApiError> {
        let mut prompt = Prompt::default();
        if self.images.is_empty() {
            prompt.tokens = vocab.tokenize(text, true, true);
            return Ok(prompt);
        }
        let mut pieces = text.split(self.mark.as_str());
        // What begins a text belongs to its first piece only.
        let first = pieces.next().unwrap_or_default();
        prompt.text(&vocab.tokenize(first, true, true));
        let mut stood = vec![false; self.images.len()];
        for piece in pieces {
            let found = piece.split_once('e').and_then(|(number, rest)| {
                let number: usize = number.parse().ok()?;
                Some((number, self.images.get(number)?, rest))
            });
            let Some((number, (_, seen), rest)) = found else {
                return Err(ApiError::Unacceptable(
                    "the chat template changes what stands for an image".to_owned(),
                ));
            };
            stood[number] = true;
            vision::place(seen, &mut prompt);
            let tokens: Vec<Token> = match rest {
                "" => Vec::new(),
                rest => vocab.tokenize(rest, false, true),
            };
            prompt.text(&tokens);
        }
        match stood.iter().zip(&self.images).find(|(stood, _)| !**stood) {
            Some((_, (path, _))) => Err(refused(
                path.clone(),
                "the model's chat template leaves this image out",
            )),
            None => Ok(prompt),
        }
    }
}

/// What the model sees depends on the file and on how much of it was asked for.
fn digest(file: &[u8], detail: Detail) -> ImageDigest {
    Sha256::new()
        .chain_update([u8::from(detail == Detail::Low)])
        .chain_update(file)
        .finalize()
        .into()
}

fn refused(path: impl Into<String>, why: &str) -> ApiError {
    let path = path.into();
    let message = format!("{path}: {why}");
    ApiError::invalid(path, message)
}

#[cfg(test)]
mod tests;
