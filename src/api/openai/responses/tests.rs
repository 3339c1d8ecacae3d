//! Requests as the chat gets them, and answers with reasoning and calls, with a template that has both.

use serde_json::{Map, Value, json};

use super::{
    answer::{Answer, Whole},
    events::Events,
    history::History,
    names::Names,
    request::{self, Asked},
    store::Store,
};
use crate::{
    api::{
        Aliases, Identity,
        error::ApiError,
        reply::{Wording, spoken::speak},
        turn::Reader,
    },
    chat::Chat,
    engine::{Finish, Piece, Usage},
};

const TEMPLATE: &str = include_str!("../../../../tests/templates/qwen3.jinja");
const ANSWER: &str = "<think>\nhmm 🤔\n</think>\n\nOn it.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"n__g\", \"arguments\": {\"a\": \"ü\"}}\n</tool_call>";

fn body(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => unreachable!("tests pass objects"),
    }
}

fn read(value: Value) -> Result<(Map<String, Value>, Asked), ApiError> {
    let identity = Identity {
        model: "m".to_owned(),
        aliases: Aliases::default(),
        loras: crate::api::Loras::default(),
        created: 0,
        fingerprint: "fp".to_owned(),
        version: Value::Null,
    };
    let store = Store::new(1 << 20);
    let mut names = Names::default();
    let mut history = History::new(&store, 0);
    request::read(body(value), &mut history, &identity, &mut names)
}

fn chat(value: Value) -> Value {
    read(value).unwrap().0.into()
}

fn refusal(value: Value) -> String {
    match read(value) {
        Err(ApiError::Invalid { param, message }) => format!("{param} | {message}"),
        Err(error) => error.to_string(),
        Ok(_) => "accepted".to_owned(),
    }
}

fn answer() -> Answer {
    let function =
        |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
    let (chat, asked) = read(json!({
        "input": "Go.",
        "tools": [function("f"), {"type": "namespace", "name": "n", "tools": [function("g")]}],
    }))
    .unwrap();
    let template = Chat::from_template(TEMPLATE, "", "").unwrap();
    let rendered = template.render(&Value::Object(chat)).unwrap();
    Answer::new(asked, Reader::new(&rendered).unwrap(), None)
}

/// Words `text`, which comes in these pieces.
fn word<W: Wording>(mut wording: W, pieces: &[&str], reason: Finish) -> String {
    let prompt = Usage {
        prompt_tokens: 7,
        cached_tokens: 2,
        ..Usage::default()
    };
    speak(&mut wording, prompt, pieces.iter().copied(), reason)
}

/// The events, after a look at what all of them must have.
fn events(stream: &str) -> Vec<Value> {
    let mut events = Vec::new();
    for frame in stream.split_terminator("\n\n") {
        let (event, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event.strip_prefix("event: ").unwrap(), data["type"]);
        assert_eq!(data["sequence_number"], events.len());
        events.push(data);
    }
    events
}

/// With a number in place of what differs between two runs of an id.
fn steady(value: &Value) -> String {
    let mut text = value.to_string();
    let mut count = 0;
    for prefix in ["rs", "msg", "fc", "call"] {
        let begin = format!(":\"{prefix}_");
        while let Some(at) = text.find(&begin) {
            let end = at + 2 + text[at + 2..].find('"').unwrap();
            let id = text[at..=end].to_owned();
            count += 1;
            text = text.replace(&id, &format!(":\"{prefix}-{count}\""));
        }
    }
    text
}

fn kinds(events: &[Value]) -> String {
    let mut told: Vec<String> = Vec::new();
    for event in events {
        let kind = event["type"].as_str().unwrap();
        let kind = format!(
            "{} {}",
            kind.trim_start_matches("response."),
            event["output_index"]
        );
        if told.last() != Some(&kind) {
            told.push(kind);
        }
    }
    told.join("\n")
}

#[test]
fn events_come_in_the_published_order_each_with_its_place() {
    let pieces: Vec<&str> = ANSWER.split_inclusive(' ').collect();
    let events = events(&word(Events::new(answer()), &pieces, Finish::Eos));
    insta::assert_snapshot!(kinds(&events), @r#"
    created null
    in_progress null
    output_item.added 0
    content_part.added 0
    reasoning_text.delta 0
    reasoning_text.done 0
    content_part.done 0
    output_item.done 0
    output_item.added 1
    content_part.added 1
    output_text.delta 1
    output_text.done 1
    content_part.done 1
    output_item.done 1
    output_item.added 2
    function_call_arguments.delta 2
    function_call_arguments.done 2
    output_item.done 2
    output_item.added 3
    function_call_arguments.delta 3
    function_call_arguments.done 3
    output_item.done 3
    completed null
    "#);
}

#[test]
fn deltas_join_to_what_done_says_and_to_the_whole_answer_however_it_is_split() {
    let whole: Value =
        serde_json::from_str(&word(Whole(answer()), &[ANSWER], Finish::Eos)).unwrap();
    let splits = (1..ANSWER.len()).filter(|at| ANSWER.is_char_boundary(*at));
    for at in splits {
        let (head, tail) = ANSWER.split_at(at);
        let events = events(&word(Events::new(answer()), &[head, tail], Finish::Eos));
        let last = &events.last().unwrap()["response"];
        assert_eq!(
            steady(&last["output"]),
            steady(&whole["output"]),
            "split at {at}"
        );
        for (index, item) in last["output"].as_array().unwrap().iter().enumerate() {
            let of_item = || events.iter().filter(|event| event["output_index"] == index);
            let joined: String = of_item()
                .filter_map(|event| event["delta"].as_str())
                .collect();
            let done = match item["type"].as_str().unwrap() {
                "function_call" => &item["arguments"],
                _ => &item["content"][0]["text"],
            };
            assert_eq!(joined, *done, "split at {at}");
            for event in of_item().filter(|event| event.get("item").is_none()) {
                assert_eq!(event["item_id"], item["id"]);
            }
            let said_done = of_item().filter(|event| event["type"] == "response.output_item.done");
            assert_eq!(
                said_done.map(|event| &event["item"]).collect::<Vec<_>>(),
                [item]
            );
        }
    }
}

#[test]
fn a_whole_answer_has_its_items_apart() {
    let whole: Value =
        serde_json::from_str(&word(Whole(answer()), &[ANSWER], Finish::Eos)).unwrap();
    insta::assert_snapshot!(steady(&whole["output"]), @r#"[{"type":"reasoning","id":"rs-1","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hmm 🤔\n"}]},{"type":"message","id":"msg-2","status":"completed","role":"assistant","content":[{"type":"output_text","text":"On it.\n","annotations":[],"logprobs":[]}]},{"type":"function_call","id":"fc-3","status":"completed","call_id":"call-5","name":"f","arguments":"{\"a\": 1}"},{"type":"function_call","id":"fc-4","status":"completed","call_id":"call-6","namespace":"n","name":"g","arguments":"{\"a\": \"ü\"}"}]"#);
    insta::assert_snapshot!(whole["usage"], @r#"{"input_tokens":7,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":0},"output_tokens":1,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8}"#);
}

#[test]
fn an_answer_cut_off_is_incomplete_and_so_is_its_last_item() {
    let stream = word(
        Events::new(answer()),
        &["<think>\nhm\n</think>\n\nOn "],
        Finish::Length,
    );
    let events = events(&stream);
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    let response = &last["response"];
    assert_eq!(response["status"], "incomplete");
    assert_eq!(
        response["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert_eq!(response["completed_at"], Value::Null);
    assert_eq!(response["output"][0]["status"], "completed");
    assert_eq!(response["output"][1]["status"], "incomplete");
}

#[test]
fn an_answer_that_says_nothing_is_an_empty_message() {
    let whole: Value = serde_json::from_str(&word(Whole(answer()), &[], Finish::Eos)).unwrap();
    assert_eq!(whole["output"][0]["content"][0]["text"], "");
    assert_eq!(whole["status"], "completed");
}

#[test]
fn a_stream_that_breaks_ends_with_what_was_said_and_why() {
    let mut wording = Events::new(answer());
    let mut out = Vec::new();
    wording.open(0, Usage::default(), &mut out);
    let piece = Piece {
        text: "<think>\n\n</think>\n\nOn ".to_owned(),
        tokens: Vec::new(),
        completion_tokens: 1,
    };
    wording.text(0, piece, Usage::default(), &mut out);
    wording.broken(&ApiError::Draining, &mut out);
    let events = events(&String::from_utf8(out).unwrap());
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    insta::assert_snapshot!(last["response"]["error"], @r#"{"code":"shutting_down","message":"the server is shutting down"}"#);
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["output"][0]["status"], "in_progress");
}

#[test]
fn what_the_assistant_did_in_one_turn_is_one_message() {
    let messages = chat(json!({
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Use tools."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}, {"type": "input_text", "text": "Now."}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "On it.", "annotations": []}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "g", "namespace": "n", "arguments": ""},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
            {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "x\"y"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
            {"role": "user", "content": "And?"},
        ],
    }));
    let lines: Vec<_> = messages["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"role":"system","content":"Be brief.\n\nUse tools."}
    {"role":"user","content":"Go.\nNow."}
    {"role":"assistant","reasoning_content":"hm","content":"On it.","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"n__g","arguments":""}}]}
    {"role":"tool","tool_call_id":"a","content":"1"}
    {"role":"tool","tool_call_id":"b","content":"2"}
    {"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"patch","arguments":"{\"input\":\"x\\\"y\"}"}}]}
    {"role":"tool","tool_call_id":"c","content":"ok"}
    {"role":"user","content":"And?"}
    "#);
}

#[test]
fn every_field_is_asked_of_the_chat_under_its_own_name() {
    let asked = chat(json!({
        "input": "Go.",
        "max_output_tokens": 9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "x", "strict": true, "schema": {"type": "object"}}, "verbosity": "medium"},
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "top_logprobs": 2,
        "temperature": 0.5,
        "seed": 3,
        "stream": true,
        "store": false,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "client_metadata": {"c": "d"},
        "tools": [
            {"type": "function", "name": "f", "description": null, "parameters": {"type": "object"}, "strict": true},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "function", "name": "f"},
    }));
    insta::assert_snapshot!(asked, @r#"{"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"},"strict":true}}],"tool_choice":{"type":"function","function":{"name":"f"}},"messages":[{"role":"user","content":"Go."}],"verbosity":"medium","response_format":{"type":"json_schema","json_schema":{"type":"json_schema","name":"x","strict":true,"schema":{"type":"object"}}},"reasoning_effort":"low","logprobs":true,"top_logprobs":2,"max_completion_tokens":9,"temperature":0.5,"seed":3,"stream":true,"client_metadata":{"c":"d"}}"#);
}

#[test]
fn tools_that_are_not_allowed_are_not_offered() {
    let function = |name: &str| json!({"type": "function", "name": name});
    let asked = chat(json!({
        "input": "Go.",
        "tools": [function("f"), function("g"), {"type": "namespace", "name": "n", "tools": [function("f")]}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [function("g"), {"type": "function", "name": "f", "namespace": "n"}]},
    }));
    assert_eq!(asked["tool_choice"], "required");
    let offered = asked["tools"].as_array().unwrap().iter();
    let offered: Vec<_> = offered.map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(offered, ["g", "n__f"]);
}

#[test]
fn what_has_no_effect_is_told() {
    let (_, asked) = read(json!({
        "input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}, {"role": "user", "content": "Go."}],
        "reasoning": {"summary": "detailed"},
        "tools": [{"type": "web_search", "external_web_access": false}, {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "c"}]}],
    }))
    .unwrap();
    insta::assert_snapshot!(asked.warnings.join("\n"), @r#"
    tools[0]: the model is not offered tools of type "web_search"
    tools[1].tools[0]: the model is not offered tools of type "custom"
    input[0].encrypted_content: another server's reasoning cannot be read; it is left out
    reasoning.summary: reasoning is sent as it is, not summarised
    "#);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_name() {
    let user = || json!({"role": "user", "content": "Go."});
    let of = |item: Value| json!({"input": [user(), item]});
    let told: Vec<_> = [
        json!({"input": 7}),
        json!({"messages": []}),
        json!({"input": "a", "max_tokens": 3}),
        json!({"input": "a", "max_output_tokens": 0}),
        json!({"input": "a", "n": 2}),
        json!({"input": "a", "background": true}),
        json!({"input": "a", "conversation": "conv_1"}),
        json!({"input": "a", "prompt": {"id": "pmpt_1"}}),
        json!({"input": "a", "truncation": "auto"}),
        json!({"input": "a", "stream_options": {}}),
        json!({"input": "a", "stream": true, "stream_options": {"include_obfuscation": true}}),
        json!({"input": "a", "include": ["everything"]}),
        json!({"input": "a", "top_logprobs": 21}),
        json!({"input": "a", "reasoning": {"summary": "long"}}),
        json!({"input": "a", "metadata": {"a": 1}}),
        json!({"input": "a", "text": {"format": {"type": "xml"}}}),
        json!({"input": "a", "text": {"format": {"type": "json_schema", "schema": {}}}}),
        json!({"input": "a", "previous_response_id": "resp_0"}),
        json!({"input": "a", "tools": [{"type": "function"}]}),
        json!({"input": "a", "tools": [{}]}),
        json!({"input": "a", "tool_choice": {"type": "web_search"}}),
        json!({"input": "a", "tool_choice": "any"}),
        json!({"input": "a", "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}}),
        of(json!("a")),
        of(json!({"type": "local_shell_call"})),
        of(json!({"role": "tool", "content": "a"})),
        of(json!({"role": "user", "content": [{"type": "input_file", "file_url": "data:"}]})),
        of(json!({"role": "user", "content": [{"type": "poem"}]})),
        of(json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": {}})),
        of(json!({"type": "function_call_output", "call_id": "a", "output": ""})),
        of(json!({"type": "item_reference", "id": "msg_0"})),
        of(json!({"id": "msg_0"})),
    ]
    .map(refusal)
    .into();
    insta::assert_snapshot!(told.join("\n"), @r#"
    input | input: expected a string or an array of items, got 7
    messages | messages: not a field of this endpoint; send `input`
    max_tokens | max_tokens: not a field of this endpoint; send `max_output_tokens`
    max_output_tokens | max_output_tokens: expected an integer from 1 to 4294967295, got 0
    n | n: not a field of this endpoint; send one request for each answer
    background | background: this server answers while you wait; send false
    conversation | conversation: conversations are not kept here; continue with `previous_response_id`
    prompt | prompt: prompts are not kept here; send `instructions` and `input`
    truncation | truncation: nothing is left out of a conversation here; send "disabled"
    stream_options | stream_options: only allowed together with `stream: true`
    stream_options.include_obfuscation | stream_options.include_obfuscation: events are not padded here; send false
    include[0] | include[0]: expected one of ["message.output_text.logprobs", "reasoning.encrypted_content", "code_interpreter_call.outputs", "computer_call_output.output.image_url", "file_search_call.results", "message.input_image.image_url", "web_search_call.action.sources", "web_search_call.results"]
    top_logprobs | top_logprobs: expected an integer from 0 to 20, got 21
    reasoning.summary | reasoning.summary: expected "auto", "concise" or "detailed", got "long"
    metadata | metadata: expected at most 16 texts of up to 512 characters, under keys of up to 64, got an object
    text.format.type | text.format.type: expected "text", "json_object" or "json_schema", got "xml"
    text.format.name | text.format.name: expected a string, but it is missing
    Previous response with id 'resp_0' not found.
    tools[0].name | tools[0].name: expected a string, but it is missing
    tools[0].type | tools[0].type: expected "function", but it is missing
    tool_choice.type | tool_choice.type: the model is not offered tools of type "web_search", so that it cannot call one
    tool_choice | tool_choice: expected "auto", "none", "required", {"type": "function", "name": …} or {"type": "allowed_tools", "mode": …, "tools": […]}, got "any"
    tool_choice.tools[0].name | tool_choice.tools[0].name: "f" is not among the tools
    input[1] | input[1]: expected an item, an object
    input[1].type | input[1].type: expected "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning" or "item_reference", got "local_shell_call"
    input[1].role | input[1].role: expected one of ["system", "developer", "user", "assistant"], got "tool"
    input[1].content[0] | input[1].content[0]: this server reads texts and images, and this is "input_file"; send "input_text" or "input_image"
    input[1].content[0].type | input[1].content[0].type: expected "input_text", "input_image", "output_text" or "refusal", got "poem"
    input[1].arguments | input[1].arguments: expected a string, got an object
    input[1].call_id | input[1].call_id: No tool call found for "a"; it must come before
    Item with id 'msg_0' not found.
    Item with id 'msg_0' not found.
    "#);
}
