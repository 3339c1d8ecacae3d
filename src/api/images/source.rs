//! Where an image of a request is: in the request itself, as a data URL, or at an address.

use url::Url;

use super::Remote;
use crate::{api::base64, config::Limits};

pub(super) enum Source {
    File(Vec<u8>),
    Address(Url),
}

pub(super) const EXPECTED: &str = "a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)";

fn starts(url: &str, scheme: &str) -> bool {
    url.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

impl Source {
    /// What an URL leads to, or what is wrong with it.
    pub(super) fn read(url: &str, limits: &Limits, remote: &Remote) -> Result<Self, String> {
        if !starts(url, "http:") && !starts(url, "https:") {
            return file(url, limits).map(Self::File);
        }
        if remote.is_off() {
            return Err(format!(
                "this server fetches no images; expected {EXPECTED}"
            ));
        }
        remote
            .address(url)
            .map(Self::Address)
            .map_err(|why| why.to_string())
    }
}

/// The bytes behind a data URL, or what is wrong with it.
pub(super) fn file(url: &str, limits: &Limits) -> Result<Vec<u8>, String> {
    if !starts(url, "data:") {
        return Err(format!("expected {EXPECTED}"));
    }
    let Some((kind, data)) = url["data:".len()..].split_once(',') else {
        return Err(format!("there is no comma in it; expected {EXPECTED}"));
    };
    let mut kind = kind.split(';');
    let media = kind.next().unwrap_or_default();
    if !media.is_empty() && !media.to_ascii_lowercase().starts_with("image/") {
        return Err(format!("{media:?} is no image; expected {EXPECTED}"));
    }
    if !kind.any(|word| word.trim().eq_ignore_ascii_case("base64")) {
        return Err(format!("it is not base64; expected {EXPECTED}"));
    }
    base64::decode(data, limits.image_bytes).map_err(|error| error.of("image"))
}
