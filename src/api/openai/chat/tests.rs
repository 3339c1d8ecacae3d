//! Reasoning and tool calls on the wire, with a template that has both.

use serde_json::{Value, json};

use super::{
    answer::{Chunks, Whole},
    functions::Offer,
};
use crate::{
    api::{
        Aliases, Identity,
        openai::{params::StreamUsage, wire::Head},
        reply::{
            Wording,
            spoken::{in_bits, speak},
        },
        turn::Reader,
    },
    chat::Chat,
    engine::{Finish, Usage},
};

const TEMPLATE: &str = include_str!("../../../../tests/templates/qwen3.jinja");
const ANSWER: &str = "<think>\nhm\n</think>\n\nOn it.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 2}}\n</tool_call>";

fn reader() -> Reader {
    let chat = Chat::from_template(TEMPLATE, "", "").unwrap();
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let request = json!({
        "messages": [{"role": "user", "content": "Go."}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "parallel_tool_calls": true,
    });
    Reader::new(&chat.render(&request).unwrap()).unwrap()
}

fn head() -> Head {
    let identity = Identity {
        model: "m".to_owned(),
        aliases: Aliases::default(),
        loras: crate::api::Loras::default(),
        created: 0,
        fingerprint: "fp".to_owned(),
        version: Value::Null,
    };
    Head::new("chatcmpl", "test", &identity)
}

/// Words `answer`, which comes a few bytes at a time.
fn word(wording: &mut impl Wording, answer: &str) -> String {
    speak(wording, Usage::default(), in_bits(answer), Finish::Eos)
}

#[test]
fn a_whole_answer_has_reasoning_content_and_calls_apart() {
    let mut whole = Whole::new(&head(), vec![reader()], Offer::Tools);
    let answer: Value = serde_json::from_str(&word(&mut whole, ANSWER)).unwrap();
    let mut choice = answer["choices"][0].clone();
    let calls = choice["message"]["tool_calls"].as_array_mut().unwrap();
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    for call in calls {
        assert!(!call["id"].as_str().unwrap().is_empty());
        call["id"] = "ID".into();
    }
    insta::assert_snapshot!(choice, @r#"{"index":0,"message":{"role":"assistant","content":"On it.\n","refusal":null,"reasoning_content":"hm\n","reasoning":"hm\n","tool_calls":[{"id":"ID","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},{"id":"ID","type":"function","function":{"name":"f","arguments":"{\"a\": 2}"}}]},"logprobs":null,"finish_reason":"tool_calls"}"#);
    let reasoning = &answer["usage"]["completion_tokens_details"]["reasoning_tokens"];
    assert!((1..10).contains(&reasoning.as_u64().unwrap()));
}

#[test]
fn content_is_null_beside_calls_that_stand_alone() {
    let mut whole = Whole::new(&head(), vec![reader()], Offer::Tools);
    let answer =
        "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let answer: Value = serde_json::from_str(&word(&mut whole, answer)).unwrap();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{}");
}

#[test]
fn a_streamed_call_names_itself_once_and_its_arguments_join_to_json() {
    let mut chunks = Chunks::new(&head(), vec![reader()], StreamUsage::Never, Offer::Tools);
    let stream = word(&mut chunks, ANSWER);
    let events = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"));
    let choices: Vec<Value> = events
        .map(|event| {
            let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
            event["choices"][0].clone()
        })
        .collect();
    let joined = |field: &str| -> String {
        let parts = choices
            .iter()
            .filter_map(|choice| choice["delta"][field].as_str());
        parts.collect()
    };
    assert_eq!(joined("reasoning_content").trim(), "hm");
    assert_eq!(joined("content").trim(), "On it.");
    for index in 0..2 {
        let deltas = choices
            .iter()
            .filter_map(|choice| choice["delta"]["tool_calls"].as_array());
        let of_call: Vec<_> = deltas
            .flatten()
            .filter(|call| call["index"] == index)
            .collect();
        assert_eq!(of_call[0]["type"], "function");
        assert_eq!(of_call[0]["function"]["name"], "f");
        assert!(of_call[0]["id"].is_string());
        let named = |call: &&&Value| call["id"].is_string() || call["function"]["name"].is_string();
        assert_eq!(of_call.iter().filter(named).count(), 1);
        let arguments: String = of_call
            .iter()
            .filter_map(|call| call["function"]["arguments"].as_str())
            .collect();
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        assert_eq!(arguments, json!({"a": index + 1}));
    }
    let last = choices.last().unwrap();
    assert_eq!(last["finish_reason"], "tool_calls");
    assert_eq!(last["delta"], json!({}));
}

#[test]
fn a_function_is_called_in_the_old_way_where_it_was_offered_so() {
    let call = "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let mut whole = Whole::new(&head(), vec![reader()], Offer::Functions);
    let answer: Value = serde_json::from_str(&word(&mut whole, call)).unwrap();
    insta::assert_snapshot!(answer["choices"][0], @r#"{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"function_call":{"name":"f","arguments":"{\"a\": 1}"}},"logprobs":null,"finish_reason":"function_call"}"#);
    let mut chunks = Chunks::new(
        &head(),
        vec![reader()],
        StreamUsage::Never,
        Offer::Functions,
    );
    let stream = word(&mut chunks, call);
    let events = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"));
    let choices: Vec<Value> = events
        .map(|event| {
            let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
            event["choices"][0].clone()
        })
        .collect();
    let calls: Vec<_> = choices
        .iter()
        .filter_map(|choice| choice["delta"]["function_call"].as_object())
        .collect();
    assert_eq!(calls[0]["name"], "f");
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.contains_key("name"))
            .count(),
        1
    );
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["arguments"].as_str())
        .collect();
    assert_eq!(arguments, "{\"a\": 1}");
    assert!(!stream.contains("tool_calls"));
    assert_eq!(choices.last().unwrap()["finish_reason"], "function_call");
}
