//! Thinking, tools and documents: in requests as the chat gets them, in answers as clients do.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    answer::{Events, Voice, Whole},
    request::{Display, Purpose, translate},
};
use crate::{
    api::{
        Identity,
        reply::{
            Wording,
            spoken::{in_bits, speak},
        },
        turn::Reader,
    },
    chat::Chat,
    config::Normalize,
    engine::{Finish, Usage},
};

const TEMPLATE: &str = include_str!("../../../tests/templates/qwen3.jinja");
const ANSWER: &str = "<think>\nhm\n</think>\n\nOn it.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 2}}\n</tool_call>";

/// The chat request that a body becomes.
fn chat(body: &Value) -> Value {
    let body = body.as_object().unwrap();
    let translated = translate(body, Purpose::Count, Normalize::On).unwrap();
    translated.body.into()
}

fn messages(body: &Value) -> String {
    let chat = chat(&json!({"messages": body}));
    let lines = chat["messages"].as_array().unwrap().iter();
    lines.map(Value::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_conversation_with_tools_and_thinking() {
    let spoken = messages(&json!([
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I need a tool.", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true, "content": [
                {"type": "text", "text": "no such"},
                {"type": "text", "text": "city"},
            ]},
            {"type": "text", "text": "And tomorrow?", "cache_control": {"type": "ephemeral"}},
        ]},
    ]));
    insta::assert_snapshot!(spoken, @r#"
    {"role":"user","content":"What is the weather?"}
    {"role":"assistant","content":"Let me see.","reasoning_content":"I need a tool.","tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Rome\"}"}},{"id":"2","type":"function","function":{"name":"weather","arguments":"{}"}}]}
    {"role":"tool","tool_call_id":"1","content":"sunny","name":"weather"}
    {"role":"tool","tool_call_id":"2","content":"Error: no such\ncity","name":"weather"}
    {"role":"user","content":"And tomorrow?"}
    "#);
}

#[test]
fn what_one_role_says_in_a_row_is_one_message() {
    let spoken = messages(&json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": [{"type": "text", "text": "d"}]},
        {"role": "system", "content": [{"type": "text", "text": "Be briefer."}]},
        {"role": "user", "content": "e"},
    ]));
    insta::assert_snapshot!(spoken, @r#"
    {"role":"system","content":"Be brief."}
    {"role":"user","content":"a\nb"}
    {"role":"assistant","content":"c\nd"}
    {"role":"system","content":"Be briefer."}
    {"role":"user","content":"e"}
    "#);
}

#[test]
fn documents_are_text_under_their_titles_and_images_are_parts() {
    let spoken = messages(&json!([{"role": "user", "content": [
        {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "media_type": "text/plain", "data": "D"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "E"}]}},
        {"type": "search_result", "title": "F", "source": "G", "content": [{"type": "text", "text": "H"}]},
    ]}]));
    insta::assert_snapshot!(spoken, @r#"{"role":"user","content":"T\nC\nD\nE\nF\nG\nH"}"#);
    let spoken = messages(&json!([{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "text", "text": "What is it?"},
    ]}]));
    insta::assert_snapshot!(spoken, @r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},{"type":"image_url","image_url":{"url":"https://example.org/a.png"}},{"type":"text","text":"What is it?"}]}"#);
}

#[test]
fn every_other_field_has_its_place_in_a_chat_request() {
    let mut chat = chat(&json!({
        "model": "m",
        "max_tokens": 7,
        "system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}],
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["x"],
        "stream": true,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "tools": [{
            "name": "f",
            "description": "Does it.",
            "input_schema": {"type": "object"},
            "input_examples": [{"a": 1}],
            "strict": true,
            "cache_control": {"type": "ephemeral"},
        }],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "seed": 3,
        "n": 2,
        "unknown": 1,
    }));
    chat["messages"] = chat["messages"][0].take();
    insta::assert_snapshot!(format!("{chat:#}"), @r#"
    {
      "model": "m",
      "seed": 3,
      "stream": true,
      "max_tokens": 7,
      "temperature": 0.5,
      "top_p": 0.9,
      "top_k": 40,
      "stop": [
        "x"
      ],
      "messages": {
        "role": "system",
        "content": "Be\nkind."
      },
      "tools": [
        {
          "type": "function",
          "function": {
            "name": "f",
            "description": "Does it.\nExample input: {\"a\":1}",
            "parameters": {
              "type": "object"
            },
            "strict": true
          }
        }
      ],
      "tool_choice": {
        "type": "function",
        "function": {
          "name": "f"
        }
      },
      "parallel_tool_calls": false,
      "thinking_budget_tokens": 2048,
      "enable_thinking": true,
      "reasoning_effort": "high",
      "response_format": {
        "type": "json_schema",
        "json_schema": {
          "name": "output",
          "strict": true,
          "schema": {
            "type": "object"
          }
        }
      }
    }
    "#);
}

#[test]
fn choices_and_thinking_in_each_of_their_forms() {
    let body = |name: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body[name] = value;
        let mut chat = chat(&body);
        chat.as_object_mut().unwrap().shift_remove("messages");
        chat
    };
    for (kind, choice) in [("auto", "auto"), ("any", "required"), ("none", "none")] {
        let chat = body("tool_choice", json!({"type": kind}));
        assert_eq!(chat, json!({"tool_choice": choice}));
    }
    for (kind, thinks) in [
        ("adaptive", true),
        ("between_tools", true),
        ("disabled", false),
    ] {
        let chat = body("thinking", json!({"type": kind}));
        assert_eq!(chat, json!({"enable_thinking": thinks}));
    }
    let newer = body(
        "output_config",
        json!({"format": {"type": "json_schema", "schema": {}}}),
    );
    let older = body(
        "output_format",
        json!({"type": "json_schema", "schema": {}}),
    );
    assert_eq!(newer, older);
}

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

fn voice(display: Display) -> Voice {
    let identity = Identity {
        model: "m".to_owned(),
        aliases: Arc::default(),
        loras: crate::api::Loras::default(),
        created: 0,
        fingerprint: "fp".to_owned(),
        version: Value::Null,
    };
    Voice::new(&identity, "req_1", vec!["<stop>".to_owned()], display)
}

/// Words `answer`, which comes a few bytes at a time.
fn word(mut wording: impl Wording, answer: &str, reason: Finish) -> String {
    let prompt = Usage {
        prompt_tokens: 10,
        cached_tokens: 4,
        ..Usage::default()
    };
    speak(&mut wording, prompt, in_bits(answer), reason)
}

fn whole(answer: &str, reason: Finish) -> Value {
    let wording = Whole::new(voice(Display::Shown), vec![reader()]);
    serde_json::from_str(&word(wording, answer, reason)).unwrap()
}

fn streamed(answer: &str, display: Display) -> Vec<Value> {
    let wording = Events::new(voice(display), vec![reader()]);
    let stream = word(wording, answer, Finish::Eos);
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn an_answer_is_thinking_text_and_calls_in_their_order() {
    let mut answer = whole(ANSWER, Finish::Eos);
    let ids: Vec<_> = answer["content"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .filter_map(|block| block.get_mut("id").map(Value::take))
        .collect();
    assert_ne!(ids[0], ids[1]);
    assert!(
        ids.iter()
            .all(|id| id.as_str().unwrap().starts_with("toolu_"))
    );
    answer["id"] = "msg_ID".into();
    answer["usage"]["output_tokens_details"].take();
    insta::assert_snapshot!(format!("{answer:#}"), @r#"
    {
      "id": "msg_ID",
      "type": "message",
      "role": "assistant",
      "model": "m",
      "content": [
        {
          "type": "thinking",
          "thinking": "hm\n",
          "signature": "fp"
        },
        {
          "type": "text",
          "text": "On it.\n"
        },
        {
          "type": "tool_use",
          "id": null,
          "name": "f",
          "input": {
            "a": 1
          }
        },
        {
          "type": "tool_use",
          "id": null,
          "name": "f",
          "input": {
            "a": 2
          }
        }
      ],
      "stop_reason": "tool_use",
      "stop_sequence": null,
      "usage": {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 51,
        "output_tokens_details": null
      },
      "system_fingerprint": "fp"
    }
    "#);
}

#[test]
fn space_between_reasoning_and_a_call_is_no_block() {
    let answer =
        "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let answer = whole(answer, Finish::Eos);
    let content = answer["content"].as_array().unwrap();
    assert_eq!(content.len(), 1, "{content:?}");
    assert_eq!(content[0]["input"], json!({}));
}

#[test]
fn a_call_that_was_cut_short_has_no_input_and_the_reason_says_why() {
    let answer = "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": ";
    let answer = whole(answer, Finish::Length);
    assert_eq!(answer["stop_reason"], "max_tokens");
    assert_eq!(answer["content"][0]["type"], "tool_use");
    assert_eq!(answer["content"][0]["input"], json!({}));
}

#[test]
fn only_the_callers_own_stop_sequences_are_told() {
    let said = "<think>\n\n</think>\n\nYes";
    let told = |text: &str| {
        let answer = whole(said, Finish::StopString(text.to_owned()));
        [
            answer["stop_reason"].clone(),
            answer["stop_sequence"].clone(),
        ]
    };
    assert_eq!(told("<stop>"), [json!("stop_sequence"), json!("<stop>")]);
    assert_eq!(told("<|im_end|>"), [json!("end_turn"), Value::Null]);
}

#[test]
fn streamed_blocks_follow_each_other_and_join_to_the_whole() {
    let events = streamed(ANSWER, Display::Shown);
    let expected = whole(ANSWER, Finish::Eos);
    let mut blocks: Vec<Value> = Vec::new();
    let mut open = false;
    for event in &events {
        let delta = &event["delta"];
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(!open);
                open = true;
                assert_eq!(event["index"], blocks.len());
                blocks.push(event["content_block"].clone());
                let block = blocks.last_mut().unwrap();
                if block["type"] == "tool_use" {
                    block["input"] = "".into();
                }
            }
            "content_block_delta" => {
                assert!(open);
                assert_eq!(event["index"], blocks.len() - 1);
                let (from, to) = match delta["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "signature"),
                    "input_json_delta" => ("partial_json", "input"),
                    other => panic!("{other}"),
                };
                let slot = &mut blocks.last_mut().unwrap()[to];
                let joined = format!(
                    "{}{}",
                    slot.as_str().unwrap(),
                    delta[from].as_str().unwrap()
                );
                *slot = joined.into();
            }
            "content_block_stop" => {
                assert!(open);
                open = false;
            }
            "message_start" => {
                assert_eq!(event["message"]["content"], json!([]));
                assert_eq!(event["message"]["stop_reason"], Value::Null);
                assert_eq!(event["message"]["usage"]["input_tokens"], 6);
                assert_eq!(event["message"]["usage"]["cache_read_input_tokens"], 4);
            }
            "message_delta" => {
                assert_eq!(delta["stop_reason"], "tool_use");
                assert_eq!(event["usage"], expected["usage"]);
            }
            other => assert_eq!(other, "message_stop"),
        }
    }
    assert_eq!(blocks.len(), expected["content"].as_array().unwrap().len());
    for (mut block, mut expected) in blocks
        .into_iter()
        .zip(expected["content"].as_array().unwrap().clone())
    {
        if block["type"] == "tool_use" {
            let input: Value = serde_json::from_str(block["input"].as_str().unwrap()).unwrap();
            block["input"] = input;
            block["id"].take();
            expected["id"].take();
        }
        assert_eq!(block, expected);
    }
}

#[test]
fn thinking_that_is_not_wanted_is_a_signature_alone() {
    let events = streamed(ANSWER, Display::Omitted);
    let deltas: Vec<_> = events
        .iter()
        .filter(|event| event["index"] == 0 && event["type"] == "content_block_delta")
        .map(|event| event["delta"].clone())
        .collect();
    assert_eq!(
        deltas,
        [json!({"type": "signature_delta", "signature": "fp"})]
    );
    let wording = Whole::new(voice(Display::Omitted), vec![reader()]);
    let answer: Value = serde_json::from_str(&word(wording, ANSWER, Finish::Eos)).unwrap();
    assert_eq!(answer["content"][0]["thinking"], "");
}
