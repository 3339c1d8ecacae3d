//! Who may ask: API keys, compared in constant time, and the tenant that a key stands for.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{App, error::ApiError};
use crate::config::Share;

/// The accepted keys, as digests: equal lengths, and no key in memory longer than needed.
pub(super) struct Keys {
    digests: Vec<[u8; 32]>,
    share: Share,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenant {
    /// Stands for the API key; one for everybody when no keys are configured.
    pub(super) key: u64,
    /// Whose cached prefixes the request may reuse.
    pub(super) cache: u64,
}

impl Keys {
    pub(super) fn new(keys: &[String], share: Share) -> Self {
        Self {
            digests: keys.iter().map(|key| digest(key)).collect(),
            share,
        }
    }

    fn admit(&self, headers: &HeaderMap) -> Result<Tenant, ApiError> {
        if self.digests.is_empty() {
            return Ok(Tenant { key: 0, cache: 0 });
        }
        let presented = digest(presented(headers).ok_or(ApiError::NoKey)?);
        // Every key is looked at, so that the time taken tells nothing about which one is near.
        let found = self.digests.iter().fold(Choice::from(0), |found, key| {
            found | key.as_slice().ct_eq(presented.as_slice())
        });
        if !bool::from(found) {
            return Err(ApiError::WrongKey);
        }
        let (head, _) = presented.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let key = u64::from_le_bytes(*head);
        let cache = match self.share {
            Share::Key => key,
            Share::All => 0,
        };
        Ok(Tenant { key, cache })
    }
}

/// Lets a request pass with a good key, and tells the routes whose it is.
pub(super) async fn require_key(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let tenant = app.keys.admit(request.headers())?;
    request.extensions_mut().insert(tenant);
    Ok(next.run(request).await)
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    let plain = || headers.get("x-api-key")?.to_str().ok().map(str::trim);
    bearer.or_else(plain).filter(|key| !key.is_empty())
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn admit(name: &'static str, value: &'static str) -> Result<Tenant, ApiError> {
        admit_with(Share::Key, name, value)
    }

    fn admit_with(
        share: Share,
        name: &'static str,
        value: &'static str,
    ) -> Result<Tenant, ApiError> {
        let keys = Keys::new(&["sk-one".to_owned(), "sk-two".to_owned()], share);
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        keys.admit(&headers)
    }

    #[test]
    fn two_keys_are_two_tenants_however_they_are_sent() {
        let one = admit("authorization", "Bearer sk-one").unwrap();
        assert_eq!(one, admit("authorization", "bEARER  sk-one ").unwrap());
        assert_eq!(one, admit("x-api-key", "sk-one").unwrap());
        assert_ne!(one, admit("x-api-key", "sk-two").unwrap());
    }

    #[test]
    fn a_shared_cache_is_one_for_all_keys_whose_turns_stay_apart() {
        let one = admit_with(Share::All, "x-api-key", "sk-one").unwrap();
        let two = admit_with(Share::All, "x-api-key", "sk-two").unwrap();
        assert_eq!(one.cache, two.cache);
        assert_ne!(one.key, two.key);
    }

    #[test]
    fn a_part_of_a_key_is_wrong_and_another_scheme_is_none() {
        assert!(matches!(
            admit("x-api-key", "sk-on"),
            Err(ApiError::WrongKey)
        ));
        assert!(matches!(
            admit("authorization", "Basic sk-one"),
            Err(ApiError::NoKey)
        ));
        assert!(matches!(
            admit("authorization", "Bearer "),
            Err(ApiError::NoKey)
        ));
    }
}
