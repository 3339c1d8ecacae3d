//! Who may ask what: API keys, compared in constant time, and the tenant that a key stands for.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{App, error::ApiError, record::Record};
use crate::{config::Share, engine::Claimant};

/// An API key, of which only the digest is kept: equal lengths, and no key in memory longer than needed.
#[derive(Debug, Clone)]
pub struct Key {
    /// What logs and metrics call it.
    name: String,
    digest: [u8; 32],
    /// Paths that it may use; a `*` at the end stands for any rest. Empty: all.
    routes: Vec<String>,
    /// Of the turns and of the queue's places, measured by the shares of the other keys.
    share: u32,
}

impl Key {
    pub fn new(name: String, secret: &str, routes: Vec<String>, share: u32) -> Self {
        Self {
            name,
            digest: digest(secret),
            routes,
            share,
        }
    }

    fn allows(&self, path: &str) -> bool {
        let fits = |route: &String| match route.strip_suffix('*') {
            Some(begin) => path.starts_with(begin),
            None => path == route,
        };
        self.routes.is_empty() || self.routes.iter().any(fits)
    }
}

/// The accepted keys; with none, everybody is let in.
pub(super) struct Keys {
    accepted: Vec<Key>,
    share: Share,
    /// Places of the queue for a share of 1.
    places: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenant {
    /// Stands for the API key; one for everybody when no keys are configured.
    pub(super) claimant: Claimant,
    /// Whose cached prefixes the request may reuse.
    pub(super) cache: u64,
}

impl Keys {
    /// `queue`: requests that may wait, of all keys together.
    pub(super) fn new(keys: Vec<Key>, share: Share, queue: u32) -> Self {
        // Keys of one name are one owner's.
        let mut owners: Vec<_> = keys.iter().map(|key| (&key.name, key.share)).collect();
        owners.sort_unstable();
        owners.dedup_by(|a, b| a.0 == b.0);
        let shares: u32 = owners.iter().map(|(_, share)| share).sum();
        Self {
            places: queue / shares.max(1),
            accepted: keys,
            share,
        }
    }

    /// Who presents one of the keys, and under which name.
    fn admit(&self, headers: &HeaderMap, path: &str) -> Result<(Tenant, &str), ApiError> {
        if self.accepted.is_empty() {
            let everybody = Tenant {
                claimant: Claimant::default(),
                cache: 0,
            };
            return Ok((everybody, NOBODY));
        }
        let presented = digest(presented(headers).ok_or(ApiError::NoKey)?);
        // Every key is looked at, so that the time taken tells nothing about which one is near.
        let mut found = u32::MAX;
        for (at, key) in (0..).zip(&self.accepted) {
            let same = key.digest.as_slice().ct_eq(presented.as_slice());
            found.conditional_assign(&at, same);
        }
        let key = self
            .accepted
            .get(found as usize)
            .ok_or(ApiError::WrongKey)?;
        if !key.allows(path) {
            return Err(ApiError::Forbidden {
                key: key.name.clone(),
                path: path.to_owned(),
            });
        }
        // Its owner stays the same when the key is replaced.
        let owner = digest(&key.name);
        let (head, _) = owner.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let owner = u64::from_le_bytes(*head);
        let tenant = Tenant {
            claimant: Claimant {
                key: owner,
                share: key.share,
                places: self.places.saturating_mul(key.share).max(1),
            },
            cache: match self.share {
                Share::Key => owner,
                Share::All => 0,
            },
        };
        Ok((tenant, &key.name))
    }
}

/// The name of whoever asks where no key is asked for.
pub(super) const NOBODY: &str = "none";

/// Lets a request pass with a good key, and tells the routes whose it is.
pub(super) async fn require_key(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let keys = app.keys.load();
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or(request.uri().path(), MatchedPath::as_str);
    let admitted = keys.admit(request.headers(), path);
    if let Some(record) = request.extensions().get::<Arc<Record>>() {
        match &admitted {
            Ok((_, name)) => record.asked_by(name),
            Err(ApiError::Forbidden { key, .. }) => record.asked_by(key),
            Err(_) => {}
        }
    }
    let (tenant, _) = admitted?;
    drop(keys);
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

    const ANY: &str = "/v1/models";

    fn keys(share: Share) -> Keys {
        let narrow = vec!["/v1/chat/completions".to_owned(), "/v1/models*".to_owned()];
        let keys = vec![
            Key::new("one".to_owned(), "sk-one", Vec::new(), 1),
            Key::new("two".to_owned(), "sk-two", narrow, 3),
            Key::new("two".to_owned(), "sk-two-too", Vec::new(), 3),
        ];
        Keys::new(keys, share, 64)
    }

    fn admit_with(
        share: Share,
        name: &'static str,
        value: &'static str,
        path: &str,
    ) -> Result<Tenant, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        keys(share).admit(&headers, path).map(|(tenant, _)| tenant)
    }

    fn admit(name: &'static str, value: &'static str) -> Result<Tenant, ApiError> {
        admit_with(Share::Key, name, value, ANY)
    }

    #[test]
    fn two_keys_are_two_tenants_however_they_are_sent() {
        let one = admit("authorization", "Bearer sk-one").unwrap();
        assert_eq!(one, admit("authorization", "bEARER  sk-one ").unwrap());
        assert_eq!(one, admit("x-api-key", "sk-one").unwrap());
        assert_ne!(one, admit("x-api-key", "sk-two").unwrap());
    }

    #[test]
    fn keys_of_one_name_are_one_tenant_with_one_share() {
        let two = admit("x-api-key", "sk-two").unwrap();
        assert_eq!(two, admit("x-api-key", "sk-two-too").unwrap());
        let one = admit("x-api-key", "sk-one").unwrap();
        assert_eq!((one.claimant.share, one.claimant.places), (1, 16));
        assert_eq!((two.claimant.share, two.claimant.places), (3, 48));
    }

    #[test]
    fn a_shared_cache_is_one_for_all_keys_whose_turns_stay_apart() {
        let one = admit_with(Share::All, "x-api-key", "sk-one", ANY).unwrap();
        let two = admit_with(Share::All, "x-api-key", "sk-two", ANY).unwrap();
        assert_eq!(one.cache, two.cache);
        assert_ne!(one.claimant, two.claimant);
    }

    #[test]
    fn a_key_opens_the_routes_it_is_for() {
        let at = |path| admit_with(Share::Key, "x-api-key", "sk-two", path);
        assert!(at("/v1/chat/completions").is_ok());
        assert!(at("/v1/models/{*id}").is_ok());
        assert!(matches!(at("/props"), Err(ApiError::Forbidden { .. })));
        assert!(admit_with(Share::Key, "x-api-key", "sk-one", "/props").is_ok());
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
