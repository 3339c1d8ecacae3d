//! Requests that arrive before the model is loaded: turned away, or kept where whoever called counts on that.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio::time::timeout;

use super::{App, Stage};

/// What becomes of a request that comes before the model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// It gets 503 at once.
    TurnedAway,
    /// It waits, as long as for a free sequence (`limits.queue_wait`). A service manager that keeps the socket starts
    /// this process because somebody connected, and keeps connections over a restart: they shall not have to come back.
    Waits,
}

/// Passes a request on once the model is loaded, or when waiting is over: then the routes say what is the matter.
pub(super) async fn receive(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.early == Early::Waits {
        let patience = app.limits.load().queue_wait;
        let mut stage = app.stage.clone();
        let loaded = stage.wait_for(|stage| !matches!(stage, Stage::Loading { .. }));
        let _ = timeout(patience, loaded).await;
    }
    next.run(request).await
}
