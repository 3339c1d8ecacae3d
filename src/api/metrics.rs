//! `GET /metrics`: what is measured, in the text format of Prometheus, at every stage of the server's life.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{App, Service, Stage, Work};
use crate::metrics::{CONTENT_TYPE, NONE, Served, Sight};

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    if let Ok(service) = app.service() {
        app.metrics.serve(|| served(&service));
    }
    let gpus = match app.metrics.served() {
        Some(served) => served.gpus.now().await,
        None => Some(Vec::new()),
    };
    let (stage, loaded) = match &*app.stage.borrow() {
        Stage::Loading { percent } => ("loading", f64::from(*percent) / 100.0),
        Stage::Ready(_) => ("ready", 1.0),
        Stage::Draining => ("draining", 1.0),
        Stage::Failed => ("failed", 1.0),
    };
    let text = app.metrics.text(&Sight {
        stage,
        loaded,
        gpus,
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

fn served(service: &Service) -> Served {
    let watch = service.work.watch();
    let shape = watch.shape();
    Served {
        fingerprint: service.identity.fingerprint.clone(),
        engine: service.identity.version["llama_cpp"]
            .as_str()
            .unwrap_or(NONE)
            .to_owned(),
        capacity_tokens: match service.work {
            Work::Generate { .. } => Some(u64::from(shape.context) * u64::from(shape.sequences)),
            Work::Embed { .. } | Work::Rank { .. } => None,
        },
        watch,
        gpus: service.gpus.clone(),
    }
}
