//! Requests that arrive before the model is loaded wait for it, where whoever called counts on that.
//!
//! A service manager that keeps the socket starts this process because somebody connected, and keeps connections over
//! a restart: neither caller shall be told to come back.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio::time::timeout;

use super::{App, Stage};

/// Passes a request on once the model is loaded, or when waiting for it is over: the routes say what is the matter.
pub(super) async fn until_loaded(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(patience) = app.patience {
        let mut stage = app.stage.clone();
        let loaded = stage.wait_for(|stage| !matches!(stage, Stage::Loading { .. }));
        let _ = timeout(patience, loaded).await;
    }
    next.run(request).await
}
