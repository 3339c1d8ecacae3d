//! `GET /openapi.json` and `GET /docs`: all of it described, for programs and for people.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::document::Document;

const BASE: &str = include_str!("openapi/base.json");
/// Paths and schemas, a file for each dialect.
const PARTS: [&str; 7] = [
    include_str!("openapi/anthropic.json"),
    include_str!("openapi/audio.json"),
    include_str!("openapi/native.json"),
    include_str!("openapi/ollama.json"),
    include_str!("openapi/openai.json"),
    include_str!("openapi/responses.json"),
    include_str!("openapi/server.json"),
];

static PAGE: LazyLock<Document> =
    LazyLock::new(|| Document::new(include_str!("openapi/page.html").to_owned()));
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| describe().to_string().into());

pub(super) async fn json() -> impl IntoResponse {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, DESCRIPTION.clone())
}

/// A page that shows the description and needs nothing from elsewhere.
pub(super) async fn page() -> Response {
    PAGE.answer()
}

fn describe() -> Value {
    let read = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut whole = read(BASE);
    whole["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for part in PARTS.map(read) {
        for pointer in ["/paths", "/components/schemas"] {
            if let Some(part) = part.pointer(pointer)
                && let Some(whole) = whole.pointer_mut(pointer)
            {
                add(whole, part);
            }
        }
    }
    whole
}

/// Two parts may describe two methods of one path.
fn add(whole: &mut Value, part: &Value) {
    if let (Value::Object(whole), Value::Object(part)) = (whole, part) {
        for (name, value) in part {
            add(whole.entry(name).or_insert_with(|| value.clone()), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn walk<'a>(value: &'a Value, see: &mut impl FnMut(&'a str, &'a Value)) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    see(name, field);
                    walk(field, see);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_page_runs_what_stands_in_it_asks_nobody_else_and_makes_markup_of_no_text() {
        PAGE.assert_safe();
    }

    #[test]
    fn parts_fit_together_and_every_reference_leads_somewhere() {
        let whole = describe();
        let mut named = 0;
        let mut paths = HashSet::new();
        for part in PARTS {
            let part: Value = serde_json::from_str(part).unwrap();
            let schemas = part["components"]["schemas"].as_object();
            named += schemas.map_or(0, serde_json::Map::len);
            for (path, methods) in part["paths"].as_object().unwrap() {
                for method in methods.as_object().unwrap().keys() {
                    let operation = format!("{method} {path}");
                    assert!(
                        paths.insert(operation.clone()),
                        "{operation} is there twice"
                    );
                }
            }
        }
        // No part hides what another describes, and the base brings one of its own.
        let schemas = whole["components"]["schemas"].as_object().unwrap();
        assert_eq!(schemas.len(), named + 1);
        let mut operations = HashSet::new();
        walk(&whole, &mut |name, value| match name {
            "$ref" => {
                let pointer = value.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(whole.pointer(pointer).is_some(), "{value}");
            }
            "operationId" => assert!(operations.insert(value.as_str().unwrap()), "{value}"),
            _ => {}
        });
        let described = |operation: &&String| !operation.starts_with("parameters ");
        assert_eq!(operations.len(), paths.iter().filter(described).count());
    }

    #[test]
    fn every_route_is_described_or_another_name_for_one_that_is() {
        /// Names that clients of older programs use.
        const OTHER_NAMES: [&str; 11] = [
            "/audio/transcriptions",
            "/v1/health",
            "/embedding",
            "/embeddings",
            "/v1/reranking",
            "/v2/rerank",
            "/rerank",
            "/reranking",
            "/models",
            "/chat/completions",
            "/completions",
        ];
        let whole = describe();
        let described = whole["paths"].as_object().unwrap();
        let mut routes = 0;
        let mut sources = sources(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api").as_ref());
        sources.push(include_str!("../api.rs").to_owned());
        for source in sources {
            for after in source.split(".route(").skip(1) {
                let Some(path) = after.trim_start().strip_prefix('"') else {
                    continue;
                };
                let path = path.split('"').next().unwrap().replace("{*", "{");
                routes += 1;
                let known = described.contains_key(&path) || OTHER_NAMES.contains(&path.as_str());
                assert!(known, "{path} is not described");
            }
        }
        assert!(routes > 40, "{routes}");
    }

    fn sources(folder: &std::path::Path) -> Vec<String> {
        let mut texts = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                texts.extend(sources(&path));
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("openapi.rs")
            {
                texts.extend(std::fs::read_to_string(path));
            }
        }
        texts
    }
}
