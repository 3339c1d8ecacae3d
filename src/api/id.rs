//! The id that a request's path ends in.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

/// As it was asked for. One that is not UTF-8 is nobody's.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let path = Path::from_request_parts(parts, state).await;
        Ok(Self(
            path.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id),
        ))
    }
}
