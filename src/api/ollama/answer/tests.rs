//! Thoughts and tool calls in Ollama's words, with a template that has both.

use serde_json::{Value, json};

use super::*;
use crate::{chat::Chat, engine::Times};

const TEMPLATE: &str = include_str!("../../../../tests/templates/qwen3.jinja");
const ANSWER: &str = "<think>\nhm\n</think>\n\nOn it.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";

fn source() -> Source {
    let chat = Chat::from_template(TEMPLATE, "", "").unwrap();
    let tool = |name: &str| {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        json!({"type": "function", "function": {"name": name, "parameters": schema}})
    };
    let request = json!({
        "messages": [{"role": "user", "content": "Go."}],
        "tools": [tool("f"), tool("g")],
        "parallel_tool_calls": true,
    });
    let rendered = chat.render(&request).unwrap();
    Source::Parsed(Box::new(Reader::new(&rendered).unwrap()))
}

fn voice() -> Voice {
    Voice::new("m".to_owned(), Style::Chat, Duration::ZERO, None)
}

/// Words `answer`, which comes a few bytes at a time.
fn word(wording: &mut impl Wording, answer: &str, reason: Finish) -> Vec<Value> {
    let mut out = Vec::new();
    let usage = Usage::default();
    wording.open(0, usage, &mut out);
    for bytes in answer.as_bytes().chunks(3) {
        let piece = Piece {
            text: String::from_utf8(bytes.to_vec()).unwrap(),
            ..Piece::default()
        };
        wording.text(0, piece, usage, &mut out);
    }
    let finished = Finished {
        last: None,
        reason,
        usage,
        times: Times::default(),
    };
    wording.end(0, &finished, usage, &mut out);
    wording.close(usage, &mut out);
    let text = String::from_utf8(out).unwrap();
    let read = |line: &str| serde_json::from_str(line).unwrap();
    text.lines().map(read).collect()
}

#[test]
fn a_whole_answer_has_thoughts_content_and_calls_apart() {
    let mut answers = word(&mut Whole::new(voice(), source()), ANSWER, Finish::Eos);
    let mut message = answers[0]["message"].take();
    for call in message["tool_calls"].as_array_mut().unwrap() {
        assert!(!call["id"].as_str().unwrap().is_empty());
        call["id"] = "ID".into();
    }
    insta::assert_snapshot!(message, @r#"{"role":"assistant","content":"On it.\n","thinking":"hm\n","tool_calls":[{"id":"ID","function":{"index":0,"name":"f","arguments":{"a":1}}},{"id":"ID","function":{"index":1,"name":"g","arguments":{}}}]}"#);
    assert_eq!(answers[0]["done_reason"], "stop");
}

#[test]
fn a_streamed_answer_says_the_same_and_its_calls_whole() {
    let whole = word(&mut Whole::new(voice(), source()), ANSWER, Finish::Eos);
    let lines = word(&mut Lines::new(voice(), source()), ANSWER, Finish::Eos);
    let joined = |name: &str| -> String {
        let parts = lines
            .iter()
            .filter_map(|line| line["message"][name].as_str());
        parts.collect()
    };
    for name in ["content", "thinking"] {
        assert_eq!(joined(name), whole[0]["message"][name].as_str().unwrap());
    }
    let with_calls: Vec<_> = lines
        .iter()
        .filter(|line| !line["message"]["tool_calls"].is_null())
        .collect();
    let functions = |message: &Value| -> Vec<Value> {
        let calls = message["tool_calls"].as_array().unwrap();
        calls.iter().map(|call| call["function"].clone()).collect()
    };
    assert_eq!(with_calls.len(), 1);
    assert_eq!(
        functions(&with_calls[0]["message"]),
        functions(&whole[0]["message"])
    );
    let done = lines.iter().map(|line| line["done"] == true);
    assert_eq!(done.filter(|done| *done).count(), 1);
}

#[test]
fn a_call_that_broke_off_is_text() {
    let answer = "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": ";
    let answers = word(&mut Whole::new(voice(), source()), answer, Finish::Length);
    let message = &answers[0]["message"];
    assert!(message.get("tool_calls").is_none());
    assert_eq!(answers[0]["done_reason"], "length");
}

#[test]
fn a_broken_stream_ends_with_an_error_line() {
    let mut out = Vec::new();
    Lines::new(voice(), Source::Plain).broken(&ApiError::Draining, &mut out);
    assert_eq!(out, b"{\"error\":\"the server is shutting down\"}\n");
}
