//! `/`: the page for whoever looks after the server, one document without outside parts; for programs, where to go.

use std::sync::LazyLock;

use axum::{
    Json,
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

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
static PAGE: LazyLock<String> = LazyLock::new(|| {
    DOCUMENT
        .replacen("<style></style>", &format!("<style>{STYLE}</style>"), 1)
        .replacen(
            "<script type=\"module\"></script>",
            &format!("<script type=\"module\">{SCRIPT}</script>"),
            1,
        )
});

/// Nothing runs and nothing is asked but what stands in the page; no text becomes markup.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// It and what it is made of need no key; what it shows does.
pub(super) async fn page(headers: HeaderMap) -> Response {
    let headers_in_common = [
        (header::VARY, "accept"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if !wants_html(&headers) {
        return (headers_in_common, Json(signpost())).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    (headers_in_common, headers, PAGE.as_str()).into_response()
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

fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_stand_in_the_page_as_the_policy_hashes_them() {
        let between = |open: &str, close: &str| {
            let (_, rest) = PAGE.split_once(open).unwrap();
            rest.split_once(close).unwrap().0
        };
        let style = between("<style>", "</style>");
        let script = between("<script type=\"module\">", "</script>");
        assert!(POLICY.contains(&hash(style)) && POLICY.contains(&hash(script)));
        assert!(style.contains("body") && script.contains("fetch("));
    }

    #[test]
    fn the_page_asks_nobody_else_and_makes_markup_of_no_text() {
        for foreign in ["https://", "src=\"http", "@import", "url("] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
        for unsafe_way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "document.cookie",
            " style=\"",
            " onclick=",
        ] {
            assert!(!PAGE.contains(unsafe_way), "{unsafe_way}");
        }
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
