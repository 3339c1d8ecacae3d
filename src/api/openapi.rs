//! `GET /openapi.json` and `GET /docs`: the API described in OpenAPI 3.1, for programs and for people.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::header,
    response::{Html, IntoResponse},
};
use serde_json::Value;

const BASE: &str = include_str!("openapi/base.json");
/// Paths and schemas, a file for each dialect.
const PARTS: [&str; 3] = [
    include_str!("openapi/anthropic.json"),
    include_str!("openapi/openai.json"),
    include_str!("openapi/server.json"),
];
const PAGE: &str = include_str!("openapi/page.html");

static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| describe().to_string().into());

pub(super) async fn json() -> impl IntoResponse {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, DESCRIPTION.clone())
}

/// A page that shows the description and needs nothing from elsewhere.
pub(super) async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE))
}

fn describe() -> Value {
    let read = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut whole = read(BASE);
    whole["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for part in PARTS.map(read) {
        for pointer in ["/paths", "/components/schemas"] {
            if let Some(Value::Object(all)) = whole.pointer_mut(pointer)
                && let Some(Value::Object(some)) = part.pointer(pointer)
            {
                all.extend(some.clone());
            }
        }
    }
    whole
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
    fn parts_fit_together_and_every_reference_leads_somewhere() {
        let whole = describe();
        let mut named = 0;
        let mut paths = HashSet::new();
        for part in PARTS {
            let part: Value = serde_json::from_str(part).unwrap();
            let schemas = part["components"]["schemas"].as_object();
            named += schemas.map_or(0, serde_json::Map::len);
            for path in part["paths"].as_object().unwrap().keys() {
                assert!(paths.insert(path.clone()), "{path} is there twice");
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
        assert!(operations.len() >= paths.len());
    }
}
