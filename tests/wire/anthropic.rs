//! `POST /v1/messages` and `/v1/messages/count_tokens`, in Anthropic's shapes to the last error.

use std::{sync::mpsc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
    response::Response,
};
use llm_server::{
    api::Stage,
    engine::{
        fake::{Fake, Fault},
        model::DecodeError,
    },
};
use serde_json::{Value, json};

use crate::support::{
    CONTEXT, PANIC, Server, Setup, events, gated, key, post, refusals, show, text, value, with,
};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// A request with one message, which the fake model repeats.
fn said(message: &str, more: Value) -> Value {
    let messages = json!([{"role": "user", "content": message}]);
    with(json!({"max_tokens": 100, "messages": messages}), more)
}

async fn ask(server: &Server, message: &str, more: Value) -> Response {
    server.post(MESSAGES, said(message, more)).await
}

/// The names of a stream's events, which must be those inside of them.
fn named(stream: &str) -> Vec<String> {
    let names = stream
        .lines()
        .filter_map(|line| line.strip_prefix("event: "));
    let names: Vec<_> = names.map(str::to_owned).collect();
    let inside: Vec<_> = events(stream)
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, inside);
    names
}

#[tokio::test]
async fn a_whole_message() {
    let server = Server::ready();
    insta::assert_snapshot!(show(ask(&server, "Hé!", json!({})).await).await, @r#"
    200 OK
    content-type: application/json

    {"id":"msg_ID","type":"message","role":"assistant","model":"org/fake","content":[{"type":"text","text":"Hé!"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":5,"output_tokens_details":{"thinking_tokens":0}},"system_fingerprint":"fp_test"}
    "#);
}

#[tokio::test]
async fn a_stream_of_named_events_in_anthropics_order() {
    let server = Server::ready();
    let more = json!({"stream": true});
    insta::assert_snapshot!(show(ask(&server, "Hé", more).await).await, @r#"
    200 OK
    content-type: text/event-stream
    cache-control: no-cache
    x-accel-buffering: no

    event: message_start
    data: {"type":"message_start","message":{"id":"msg_ID","type":"message","role":"assistant","model":"org/fake","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,"output_tokens_details":{"thinking_tokens":0}},"system_fingerprint":"fp_test"}}

    event: content_block_start
    data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"H"}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"é"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":0}

    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":4,"output_tokens_details":{"thinking_tokens":0}}}

    event: message_stop
    data: {"type":"message_stop"}
    "#);
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole_message() {
    let server = Server::ready();
    let whole = value(ask(&server, "What is said", json!({})).await).await;
    let stream = text(ask(&server, "What is said", json!({"stream": true})).await).await;
    let names = named(&stream);
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    let last = ["content_block_stop", "message_delta", "message_stop"];
    assert_eq!(names[names.len() - 3..], last);
    assert!(!stream.contains("[DONE]"));
    let events = events(&stream);
    let joined: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(joined, whole["content"][0]["text"].as_str().unwrap());
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(
        end["usage"]["output_tokens"],
        whole["usage"]["output_tokens"]
    );
}

#[tokio::test]
async fn why_an_answer_ended() {
    let server = Server::ready();
    let reason = async |more: Value| {
        let answer = value(ask(&server, "one two", more).await).await;
        format!(
            "{} {} {}",
            answer["stop_reason"], answer["stop_sequence"], answer["content"][0]["text"]
        )
    };
    insta::assert_snapshot!(reason(json!({})).await, @r#""end_turn" null "one two""#);
    insta::assert_snapshot!(reason(json!({"max_tokens": 3})).await, @r#""max_tokens" null "one""#);
    insta::assert_snapshot!(reason(json!({"stop_sequences": ["x", " t"]})).await, @r#""stop_sequence" " t" "one""#);
}

#[tokio::test]
async fn the_prompt_is_the_sum_of_three_counts_and_the_one_that_is_counted() {
    let server = Server::ready();
    let body = || {
        said(
            "The same words again and again.",
            json!({"system": "Be kind."}),
        )
    };
    let prompt = |answer: &Value| {
        let usage = &answer["usage"];
        let counts = [
            "input_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
        ];
        let counts = counts.map(|name| usage[name].as_u64().unwrap());
        (counts[1], counts.iter().sum::<u64>())
    };
    let first = value(server.post(MESSAGES, body()).await).await;
    let second = value(server.post(MESSAGES, body()).await).await;
    let (cached, tokens) = prompt(&first);
    assert_eq!((cached, tokens), (0, 41));
    let (cached, again) = prompt(&second);
    assert!(cached > 0);
    assert_eq!(again, tokens);
    let counted = value(server.post(COUNT, body()).await).await;
    assert_eq!(counted, json!({"input_tokens": tokens}));
}

#[tokio::test]
async fn counting_needs_no_limit_and_knows_none() {
    let server = Server::ready();
    let long = "x".repeat(2 * CONTEXT as usize);
    let body = json!({"messages": [{"role": "user", "content": long}]});
    let counted = value(server.post(COUNT, body).await).await;
    assert_eq!(counted["input_tokens"], 2 * CONTEXT + 1);
}

#[tokio::test]
async fn every_response_names_its_request() {
    let server = Server::ready();
    for body in [said("a", json!({})), json!({})] {
        let request = Request::post("/v1/messages?beta=true")
            .header("x-request-id", "mine")
            .header("anthropic-version", "2023-06-01")
            .header("anthropic-beta", "whatever-2099-01-01")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = server.send(request).await;
        assert_eq!(response.headers()["request-id"], "mine");
        assert_eq!(response.headers()["x-request-id"], "mine");
    }
    let response = server.get("/v1/models").await;
    assert!(!response.headers().contains_key("request-id"));
}

#[tokio::test]
async fn what_describes_a_request_changes_nothing() {
    let server = Server::ready();
    let more = json!({
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "mcp_servers": [],
        "container": null,
        "tools": [],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "what_comes_next_year": {"a": 1},
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}},
        ]}],
    });
    let response = ask(&server, "", more).await;
    assert!(!response.headers().contains_key("x-warning"));
    let answer = value(response).await;
    assert_eq!(answer["content"], json!([{"type": "text", "text": "Hi"}]));
}

#[tokio::test]
async fn what_has_no_effect_is_told_in_a_header() {
    let server = Server::ready();
    let more = json!({
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "thread": {"type": "create"},
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "c"},
        ],
    });
    let response = ask(&server, "", more).await;
    let warnings: Vec<_> = response.headers().get_all("x-warning").iter().collect();
    insta::assert_snapshot!(format!("{warnings:#?}"), @r#"
    [
        "messages[1].content[0]: redacted thinking cannot be read here and is left out",
        "thread: no conversation is kept here; send all of it each time",
        "context_management: nothing is edited here; the whole conversation is read",
        "thinking.budget_tokens: this model's chat template has no marks around thinking; there is no budget",
    ]
    "#);
}

#[tokio::test]
async fn a_line_that_differs_in_every_request_does_not_cost_the_cache() {
    let server = Server::ready();
    let body = |cch: &str| {
        let line = format!("x-anthropic-billing-header: cc_version=2.1.0; cch={cch};");
        let system =
            [line, "You are helpful. ".repeat(5)].map(|text| json!({"type": "text", "text": text}));
        said("Go on", json!({"system": system}))
    };
    value(server.post(MESSAGES, body("00000")).await).await;
    let answer = value(server.post(MESSAGES, body("fffff")).await).await;
    let cached = answer["usage"]["cache_read_input_tokens"].as_u64();
    assert!(cached.unwrap() > 64, "{answer}");
}

#[tokio::test]
async fn a_beginning_of_the_answer_is_gone_on_from() {
    let server = Server::ready();
    let more = json!({"messages": [
        {"role": "user", "content": "Say it."},
        {"role": "assistant", "content": "The answer is"},
    ]});
    let response = ask(&server, "", more).await;
    assert_eq!(response.status(), StatusCode::OK);
    // A beginning that says nothing is none.
    let more = json!({"messages": [
        {"role": "user", "content": "Say it."},
        {"role": "assistant", "content": ""},
    ]});
    let answer = value(ask(&server, "", more).await).await;
    assert_eq!(answer["content"][0]["text"], "Say it.");
}

#[tokio::test]
async fn a_message_without_blocks_is_an_empty_one() {
    let server = Server::ready();
    let tokens = async |content: Value| {
        let more = json!({"messages": [{"role": "user", "content": content}]});
        let answer = value(ask(&server, "", more).await).await;
        answer["usage"]["input_tokens"].clone()
    };
    assert!(tokens(json!([])).await.is_number());
    assert_eq!(tokens(json!([])).await, tokens(json!("")).await);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
async fn fields_that_are_wrong_are_named_as_they_were_written() {
    let server = Server::ready();
    let user = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let assistant = |block: Value| {
        json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "text", "text": "b"}, block]},
            {"role": "user", "content": "c"},
        ]})
    };
    let result = |content: Value| {
        user(json!({"type": "tool_result", "tool_use_id": "t", "content": content}))
    };
    let tool = |tool: Value| json!({"tools": [tool]});
    let format = |schema: Value| json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let cases = [
        json!({"max_tokens": null}),
        json!({"max_tokens": 0}),
        json!({"temperature": 1.5}),
        json!({"top_p": 2}),
        json!({"top_k": -1}),
        json!({"stop_sequences": ["a", ""]}),
        json!({"stop_sequences": "a"}),
        json!({"stream": "yes"}),
        json!({"model": "claude"}),
        json!({"system": 1}),
        json!({"system": [{"type": "image"}]}),
        json!({"messages": []}),
        json!({"messages": ["a"]}),
        json!({"messages": [{"role": "tool", "content": "a"}]}),
        json!({"messages": [{"role": "user"}]}),
        user(json!("a")),
        user(json!({"type": "text"})),
        user(json!({"type": "tool_use", "id": "a", "name": "f", "input": {}})),
        user(json!({"type": "image", "source": {"type": "file", "file_id": "a"}})),
        user(
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}),
        ),
        user(
            json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}),
        ),
        user(
            json!({"type": "document", "source": {"type": "text", "data": "a"}, "citations": {"enabled": true}}),
        ),
        user(json!({"type": "tool_result", "content": "a"})),
        result(json!([{"type": "image", "source": {}}])),
        result(json!([{"type": "video"}])),
        assistant(json!({"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}})),
        assistant(json!({"type": "tool_use", "id": "a", "name": "f", "input": "{}"})),
        json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
        ]}),
        tool(json!({"type": "web_search_20250305", "name": "web_search"})),
        tool(json!({"name": "f"})),
        tool(json!({"name": "", "input_schema": {}})),
        tool(
            json!({"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20250825"]}),
        ),
        json!({"tool_choice": "auto"}),
        json!({"tool_choice": {"type": "some"}}),
        json!({"tool_choice": {"type": "any"}}),
        json!({"tool_choice": {"type": "tool", "name": "g"}, "tools": [{"name": "f", "input_schema": {}}]}),
        json!({"thinking": {"type": "enabled"}}),
        json!({"thinking": {"type": "deep"}}),
        json!({"output_config": {"effort": "none"}}),
        json!({"output_config": {"format": {"type": "json_object"}}}),
        format(json!({"type": "object", "properties": {"a": {"not": {"const": 1}}}})),
        json!({"output_format": {"type": "json_schema", "schema": {"type": "string", "not": {}}}}),
        json!({"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]}),
        json!({"container": "c"}),
        json!({"service_tier": "cheap"}),
        json!({"metadata": "m"}),
        json!({"logit_bias": 1}),
    ];
    let told = refusals(async |case| ask(&server, "a", case).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 invalid_request_error | max_tokens: expected an integer of at least 1, but it is missing
    400 invalid_request_error | max_tokens: expected an integer from 1 to 4294967295, got 0
    400 invalid_request_error | temperature: expected a number from 0 to 1, got 1.5
    400 invalid_request_error | top_p: expected a number from 0 to 1, got 2
    400 invalid_request_error | top_k: expected an integer from 0 to 2147483647, got -1
    400 invalid_request_error | stop_sequences: expected an array of strings that are not empty
    400 invalid_request_error | stop_sequences: expected an array, got "a"
    400 invalid_request_error | stream: expected true or false, got "yes"
    404 not_found_error | the model `claude` does not exist; this server serves `org/fake`
    400 invalid_request_error | system: expected a string or an array of text blocks, got 1
    400 invalid_request_error | system[0].type: expected "text", got "image"
    400 invalid_request_error | messages: expected an array of at least one message, got an array of 0
    400 invalid_request_error | messages[0]: expected a message, an object
    400 invalid_request_error | messages[0].role: expected "user", "assistant" or "system", got "tool"
    400 invalid_request_error | messages[0].content: expected a string or an array of content blocks, but it is missing
    400 invalid_request_error | messages[0].content[0]: expected a content block, an object
    400 invalid_request_error | messages[0].content[0].text: expected a string, but it is missing
    400 invalid_request_error | messages[0].content[0].type: expected "text", "image", "document", "search_result" or "tool_result", got "tool_use"
    400 invalid_request_error | messages[0].content[0].source.type: expected "base64" or "url", got "file"
    400 invalid_request_error | messages[0].content[0]: this model takes no images
    400 invalid_request_error | messages[0].content[0].source.type: expected "text" or "content" (PDF files and files by URL or id are not read here), got "base64"
    400 invalid_request_error | messages[0].content[0].citations.enabled: this server gives no citations; leave it out
    400 invalid_request_error | messages[0].content[0].tool_use_id: expected a string, but it is missing
    400 invalid_request_error | messages[0].content[0].content[0].source.type: expected "base64" or "url", but it is missing
    400 invalid_request_error | messages[0].content[0].content[0].type: expected "text", "image", "document", "search_result" or "tool_reference", got "video"
    400 invalid_request_error | messages[1].content[1].type: expected "text", "thinking", "redacted_thinking" or "tool_use" (no tool runs on this server), got "server_tool_use"
    400 invalid_request_error | messages[1].content[1].input: expected an object, got "{}"
    400 invalid_request_error | messages[1]: ends with tool_use; a user message with its tool_result is expected after it
    400 invalid_request_error | tools[0].type: expected "custom", a tool that the caller runs, with its input_schema (this server runs none, and the model knows none of Anthropic's by name), got "web_search_20250305"
    400 invalid_request_error | tools[0].input_schema: expected a JSON schema, an object, but it is missing
    400 invalid_request_error | tools[0].name: expected a string of 1 to 256 bytes, got ""
    400 invalid_request_error | tools[0].allowed_callers: expected an array with "direct", got an array of 1
    400 invalid_request_error | tool_choice: expected an object, got "auto"
    400 invalid_request_error | tool_choice.type: expected "auto", "any", "tool" or "none", got "some"
    400 invalid_request_error | tool_choice: demands a tool call, but there are no tools
    400 invalid_request_error | tool_choice.name: "g" is not among the tools
    400 invalid_request_error | thinking.budget_tokens: expected an integer of at least 1, but it is missing
    400 invalid_request_error | thinking.type: expected "enabled", "disabled", "adaptive" or "between_tools", got "deep"
    400 invalid_request_error | output_config.effort: expected "low", "medium", "high", "xhigh" or "max", got "none"
    400 invalid_request_error | output_config.format.type: expected "json_schema", got "json_object"
    400 invalid_request_error | output_config.format.schema#/properties/a/not: this keyword is not supported
    400 invalid_request_error | output_format.schema#/not: this keyword is not supported
    400 invalid_request_error | mcp_servers: this server does not support it; leave it out
    400 invalid_request_error | container: this server does not support it; leave it out
    400 invalid_request_error | service_tier: expected "auto" or "standard_only", got "cheap"
    400 invalid_request_error | metadata: expected an object, got "m"
    400 invalid_request_error | logit_bias: expected token ids below 258 with biases from -100 to 100 (or false), as an object or an array of pairs
    "#);
}

#[tokio::test]
async fn every_described_parameter_of_the_wrong_type_is_refused_by_its_name() {
    let server = Server::ready();
    let described = value(server.get("/openapi.json").await).await;
    let properties = &described["components"]["schemas"]["AnthropicMessages"]["properties"];
    let properties = properties.as_object().unwrap();
    assert!(properties.len() > 20);
    for name in properties.keys() {
        let mut more = json!({});
        more[name] = json!([[{}]]);
        let response = ask(&server, "a", more).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
        let message = value(response).await["error"]["message"].clone();
        assert!(message.as_str().unwrap().starts_with(name), "{message}");
    }
}

#[tokio::test]
async fn a_conversation_that_should_be_kept_here_is_told_to_be_lost() {
    let server = Server::ready();
    let more = json!({"thread": {"type": "continue", "previous_message_id": "msg_1"}});
    let body = value(ask(&server, "a", more).await).await;
    assert_eq!(body["error"]["details"]["error_code"], "thread_not_found");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_says_so_in_the_words_that_clients_look_for() {
    let server = Server::ready();
    let long = "x".repeat(2 * CONTEXT as usize);
    let mut shown = Vec::new();
    for stream in [false, true] {
        shown.push(show(ask(&server, &long, json!({"stream": stream})).await).await);
    }
    assert_eq!(shown[0], shown[1]);
    insta::assert_snapshot!(shown[0], @r#"
    400 Bad Request
    content-type: application/json

    {"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 513 tokens > 256 maximum"},"request_id":"req_ID"}
    "#);
}

#[tokio::test]
async fn routes_that_are_not_there() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_get("/v1/messages/batches").await, @r#"
    404 Not Found
    content-type: application/json

    {"type":"error","error":{"type":"not_found_error","message":"there is no GET /v1/messages/batches here"},"request_id":"req_ID"}
    "#);
    insta::assert_snapshot!(server.show_get(MESSAGES).await, @r#"
    405 Method Not Allowed
    content-type: application/json
    allow: POST

    {"type":"error","error":{"type":"invalid_request_error","message":"/v1/messages does not answer to GET"},"request_id":"req_ID"}
    "#);
    // The neighbours speak as before.
    let other = value(server.get("/v1/messagesx").await).await;
    assert_eq!(other["error"]["code"], "unknown_url");
}

#[tokio::test]
async fn a_key_is_taken_from_either_header() {
    let server = Setup {
        keys: vec![key("sk-ant-test")],
        ..Setup::default()
    }
    .start();
    insta::assert_snapshot!(show(ask(&server, "a", json!({})).await).await, @r#"
    401 Unauthorized
    content-type: application/json
    www-authenticate: Bearer

    {"type":"error","error":{"type":"authentication_error","message":"an API key is required: send it as `Authorization: Bearer KEY` or in the header `x-api-key`"},"request_id":"req_ID"}
    "#);
    for (name, key, status) in [
        ("x-api-key", "sk-ant-test", StatusCode::OK),
        ("authorization", "Bearer sk-ant-test", StatusCode::OK),
        ("x-api-key", "sk-ant-other", StatusCode::UNAUTHORIZED),
    ] {
        let body = said("a", json!({})).to_string();
        let request = Request::post(MESSAGES).header(name, key);
        let response = server.send(request.body(body.into()).unwrap()).await;
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let server = Server::ready();
    let response = server.send(post(MESSAGES, "{\"max_tokens\":")).await;
    insta::assert_snapshot!(show(response).await, @r#"
    400 Bad Request
    content-type: application/json

    {"type":"error","error":{"type":"invalid_request_error","message":"the body is not valid JSON: EOF while parsing a value at line 1 column 14"},"request_id":"req_ID"}
    "#);
    let response = server
        .send(post(MESSAGES, vec![b' '; (64 << 10) + 1]))
        .await;
    insta::assert_snapshot!(show(response).await, @r#"
    413 Payload Too Large
    content-type: application/json

    {"type":"error","error":{"type":"request_too_large","message":"the body is larger than 65536 bytes"},"request_id":"req_ID"}
    "#);
}

#[tokio::test]
async fn a_full_queue() {
    let (fake, _permits) = gated(1);
    let server = Setup {
        fake,
        queue: 1,
        ..Setup::default()
    }
    .start();
    let ask = || ask(&server, "a", json!({}));
    // One decodes, one waits; both are held here without being polled any further.
    let mut first = Box::pin(ask());
    let mut second = Box::pin(ask());
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    insta::assert_snapshot!(show(ask().await).await, @r#"
    429 Too Many Requests
    content-type: application/json
    retry-after: 1
    retry-after-ms: 1000

    {"type":"error","error":{"type":"rate_limit_error","message":"the server is busy: 1 requests are waiting already"},"request_id":"req_ID"}
    "#);
}

#[tokio::test]
async fn a_server_that_cannot_answer_now_is_overloaded() {
    let server = Server::ready();
    server.stage.send_replace(Stage::Loading { percent: 3 });
    insta::assert_snapshot!(show(ask(&server, "a", json!({})).await).await, @r#"
    529 <unknown status code>
    content-type: application/json
    retry-after: 1
    retry-after-ms: 1000

    {"type":"error","error":{"type":"overloaded_error","message":"Loading model"},"request_id":"req_ID"}
    "#);
    server.stage.send_replace(Stage::Draining);
    let response = server.post(COUNT, said("a", json!({}))).await;
    assert_eq!(response.status().as_u16(), 529);
}

#[tokio::test]
async fn a_request_that_runs_too_long() {
    let (fake, permits) = gated(1);
    let mut setup = Setup {
        fake,
        ..Setup::default()
    };
    setup.limits.request = Duration::ZERO;
    let server = setup.start();
    drop(permits);
    insta::assert_snapshot!(show(ask(&server, "a", json!({})).await).await, @r#"
    504 Gateway Timeout
    content-type: application/json
    x-should-retry: false

    {"type":"error","error":{"type":"timeout_error","message":"the request ran longer than the 0ns that this server allows"},"request_id":"req_ID"}
    "#);
}

#[tokio::test]
async fn a_bug_is_a_500_in_anthropics_shape() {
    let server = Server::ready();
    insta::assert_snapshot!(show(ask(&server, PANIC, json!({})).await).await, @r#"
    500 Internal Server Error
    content-type: application/json

    {"type":"error","error":{"type":"api_error","message":"the server failed to answer this request"},"request_id":"req_ID"}
    "#);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_event() {
    // Fails only once the client has read the beginning.
    let (fail, wait) = mpsc::channel::<()>();
    let mut left = 2;
    let fault: Fault = Box::new(move |_| {
        if left > 0 {
            left -= 1;
            return None;
        }
        let _ = wait.recv();
        Some(DecodeError::Refused("device lost".to_owned()))
    });
    let server = Setup {
        fake: Fake::new(1, CONTEXT).with_fault(fault),
        ..Setup::default()
    }
    .start();
    let response = ask(&server, "abc", json!({"stream": true})).await;
    assert_eq!(response.status(), StatusCode::OK);
    drop(fail);
    let stream = text(response).await;
    let names = named(&stream);
    assert_eq!(names.last().map(String::as_str), Some("error"));
    let error = events(&stream).pop().unwrap();
    assert_eq!(error["error"]["type"], "api_error");
    assert!(error["request_id"].as_str().unwrap().starts_with("req_"));
}

#[tokio::test]
async fn a_silent_stream_pings() {
    let (fake, permits) = gated(1);
    let mut setup = Setup {
        fake,
        ..Setup::default()
    };
    setup.limits.keep_alive = Duration::from_millis(5);
    let server = setup.start();
    let response = ask(&server, "a", json!({"stream": true})).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body().into_data_stream();
    let first = futures_util::StreamExt::next(&mut body)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        first,
        "event: ping\ndata: {\"type\":\"ping\"}\n\n".as_bytes()
    );
    drop(permits);
}
