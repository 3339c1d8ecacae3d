//! `/`: the page for whoever looks after the server, one document without outside parts; for programs, where to go.

use std::sync::LazyLock;

use axum::{
    Json,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::document::Document;

const DOCUMENT: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One module: the files share their names.
const SCRIPT: &str = concat!(
    include_str!("page/words.js"),
    include_str!("page/wire.js"),
    include_str!("page/prose.js"),
    include_str!("page/placement.js"),
    include_str!("page/figures.js"),
    include_str!("page/recent.js"),
    include_str!("page/chat.js"),
    include_str!("page/main.js"),
);

/// Style and script in their places.
static PAGE: LazyLock<Document> = LazyLock::new(|| {
    let html = DOCUMENT
        .replacen("<style></style>", &format!("<style>{STYLE}</style>"), 1)
        .replacen(
            "<script type=\"module\"></script>",
            &format!("<script type=\"module\">{SCRIPT}</script>"),
            1,
        );
    Document::new(html)
});

/// It and what it is made of need no key; what it shows does.
pub(super) async fn page(headers: HeaderMap) -> Response {
    let vary = [(header::VARY, "accept")];
    if wants_html(&headers) {
        (vary, PAGE.answer()).into_response()
    } else {
        let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (vary, headers, Json(signpost())).into_response()
    }
}

/// Browsers say `text/html`; `*/*` is said by everything.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

fn signpost() -> Value {
    json!({
        "name": "llm-server",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": {
            "chat": "/v1/chat/completions",
            "completions": "/v1/completions",
            "embeddings": "/v1/embeddings",
            "rerank": "/v1/rerank",
            "models": "/v1/models",
            "health": "/health",
            "status": "/status",
            "props": "/props",
            "version": "/version",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_runs_what_stands_in_it_asks_nobody_else_and_makes_markup_of_no_text() {
        PAGE.assert_safe();
    }

    #[test]
    fn only_who_names_html_gets_it() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_html(&headers)
        };
        assert!(wants("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(wants("application/json, Text/HTML;q=0.9"));
        assert!(!wants("*/*") && !wants("application/json"));
        assert!(!wants_html(&HeaderMap::new()));
    }
}
