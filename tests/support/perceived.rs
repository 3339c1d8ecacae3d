//! What a model makes of a picture or a sound: a question about it, and the alternatives for the first token of the answer.

use serde_json::{Value, json};

use crate::server::Server;

pub(crate) fn question(parts: &[Value]) -> Value {
    let mut content = parts.to_vec();
    content.push(json!({"type": "text", "text": "What is this?"}));
    json!({
        "messages": [{"role": "user", "content": content}],
        "temperature": 0, "max_tokens": 4, "logprobs": true, "top_logprobs": 5,
    })
}

pub(crate) fn ask(server: &Server, body: &Value) -> Value {
    let (status, text) = server
        .post("/v1/chat/completions", &body.to_string())
        .unwrap();
    assert_eq!(status, 200, "{text}\n{}", server.read_log());
    serde_json::from_str(&text).unwrap()
}

/// The first token's alternatives.
pub(crate) fn alternatives(answer: &Value) -> Vec<(String, f64)> {
    let first = &answer["choices"][0]["logprobs"]["content"][0];
    let one = |one: &Value| (one["token"].to_string(), one["logprob"].as_f64().unwrap());
    let top = first["top_logprobs"].as_array().unwrap();
    top.iter().map(one).collect()
}

pub(crate) fn distance(one: &[(String, f64)], other: &[(String, f64)]) -> f64 {
    let apart = |(token, logprob): &(String, f64)| {
        let found = other.iter().find(|(name, _)| name == token);
        found.map_or(f64::INFINITY, |(_, other)| (logprob - other).abs())
    };
    one.iter().map(apart).fold(0.0, f64::max)
}
