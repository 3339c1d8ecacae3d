//! What `/openapi.json` says is so: every path answers, and every parameter is read.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::support::{Server, text, value};

async fn description() -> Value {
    value(Server::ready().get("/openapi.json").await).await
}

#[tokio::test]
async fn every_described_path_is_there_and_answers_to_the_described_methods() {
    let server = Server::ready();
    let described = description().await;
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "x");
        let methods = methods.as_object().unwrap().keys();
        for method in methods.filter(|method| *method != "parameters") {
            let method = method.to_uppercase();
            let request = axum::http::Request::builder()
                .method(method.as_str())
                .uri(&path)
                .body("{}".into())
                .unwrap();
            let response = server.send(request).await;
            let status = response.status();
            let said = text(response).await;
            assert!(
                status != StatusCode::METHOD_NOT_ALLOWED && !said.contains("unknown_url"),
                "{method} {path}: {status} {said}"
            );
        }
    }
}

/// A value that fits none of the schemas a parameter may have, if there is one.
fn misfit(schema: &Value) -> Option<Value> {
    let forms: Vec<&Value> = match &schema["anyOf"] {
        Value::Array(forms) => forms.iter().collect(),
        _ => vec![schema],
    };
    let candidates = [json!({"surely": ["wrong"]}), json!(false), json!([[{}]])];
    let fits = |value: &Value, form: &&Value| {
        let is = |name: &str| match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "boolean" => value.is_boolean(),
            _ => false,
        };
        let any = form.get("type").is_none() && form.get("enum").is_none();
        any || form["type"].as_str().is_some_and(is)
    };
    candidates
        .into_iter()
        .find(|value| !forms.iter().any(|form| fits(value, form)))
}

#[tokio::test]
async fn every_described_parameter_of_the_wrong_type_is_refused_by_its_name() {
    let server = Server::ready();
    let described = description().await;
    let valid = [
        (
            "/v1/chat/completions",
            "OpenAiChat",
            json!({"messages": [{"role": "user", "content": "a"}]}),
        ),
        ("/v1/completions", "OpenAiText", json!({"prompt": "a"})),
    ];
    let mut checked = 0;
    for (path, schema, body) in valid {
        let properties = &described["components"]["schemas"][schema]["properties"];
        for (name, schema) in properties.as_object().unwrap() {
            let Some(wrong) = misfit(schema) else {
                continue;
            };
            let mut body: Map<String, Value> = body.as_object().unwrap().clone();
            body.insert(name.clone(), wrong.clone());
            let response = server.post(path, Value::Object(body)).await;
            let status = response.status();
            let error = value(response).await;
            assert_eq!(
                status,
                StatusCode::BAD_REQUEST,
                "{path} {name}={wrong}: {error}"
            );
            let param = error["error"]["param"].as_str().unwrap_or_default();
            assert!(
                param.starts_with(name.as_str()),
                "{path} {name}={wrong}: {error}"
            );
            checked += 1;
        }
    }
    assert!(checked > 80, "{checked}");
}
