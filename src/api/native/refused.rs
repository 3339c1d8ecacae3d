//! Routes of llama-server that would change the server: told what to do instead.

use crate::api::error::ApiError;

pub(super) async fn props() -> ApiError {
    ApiError::Unacceptable(
        "the properties of this server are set in its configuration file and do not change while it runs".into(),
    )
}
