//! `/v1/responses`: answered, streamed, continued, kept for one key, and forgotten.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Server, Setup, gated, key, refusals, show, text, value};

fn body(input: Value, more: Value) -> Value {
    let mut body = json!({"model": "org/fake"});
    body["input"] = input;
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

async fn ask(server: &Server, input: Value, more: Value) -> Value {
    value(server.post("/v1/responses", body(input, more)).await).await
}

/// A request with a key.
fn keyed(method: Method, path: &str, secret: &str, body: Option<Value>) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-api-key", secret);
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).unwrap()
}

/// The body, with everything that differs between two runs made equal.
fn steady(body: &mut Value) {
    match body {
        Value::Array(items) => items.iter_mut().for_each(steady),
        Value::Object(object) => {
            for (name, value) in object {
                match name.as_str() {
                    "id" | "item_id" | "first_id" | "last_id" if value.is_string() => {
                        let id = value.as_str().unwrap_or_default();
                        let (prefix, rest) = id.split_once('_').unwrap();
                        assert_eq!(rest.len(), 32, "{id}");
                        *value = format!("{prefix}_ID").into();
                    }
                    "created_at" | "completed_at" if value.is_number() => *value = "NOW".into(),
                    _ => steady(value),
                }
            }
        }
        _ => {}
    }
}

/// The events, after a look at their names and numbers.
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

#[tokio::test]
async fn a_text_is_answered_with_a_message() {
    let server = Server::ready();
    let more = json!({"temperature": 0.7, "top_p": 0.9, "max_output_tokens": 20, "metadata": {"a": "b"}, "user": "u"});
    let mut answer = ask(&server, "hi".into(), more).await;
    steady(&mut answer);
    insta::assert_snapshot!(answer, @r#"{"id":"resp_ID","object":"response","created_at":"NOW","background":false,"instructions":null,"max_output_tokens":20,"max_tool_calls":null,"model":"org/fake","parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"top_logprobs":0,"truncation":"disabled","user":"u","metadata":{"a":"b"},"system_fingerprint":"fp_test","temperature":0.7,"top_p":0.9,"presence_penalty":0.0,"frequency_penalty":0.0,"status":"completed","completed_at":"NOW","error":null,"incomplete_details":null,"output":[{"type":"message","id":"msg_ID","status":"completed","role":"assistant","content":[{"type":"output_text","text":"hi","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":6}}"#);
}

#[tokio::test]
async fn a_stream_tells_the_same_in_events() {
    let server = Server::ready();
    let more = json!({"stream": true, "top_logprobs": 1});
    let response = server.post("/v1/responses", body("hi".into(), more)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut told = Vec::new();
    for mut event in events(&text(response).await) {
        steady(&mut event);
        if let Some(response) = event.get_mut("response") {
            *response = json!({"status": response["status"], "output": response["output"], "usage": response["usage"]});
        }
        told.push(event.to_string());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"type":"response.created","sequence_number":0,"response":{"status":"in_progress","output":[],"usage":null}}
    {"type":"response.in_progress","sequence_number":1,"response":{"status":"in_progress","output":[],"usage":null}}
    {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"message","id":"msg_ID","status":"in_progress","role":"assistant","content":[]}}
    {"type":"response.content_part.added","sequence_number":3,"item_id":"msg_ID","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}
    {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_ID","output_index":0,"content_index":0,"delta":"h","logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]}]}
    {"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_ID","output_index":0,"content_index":0,"delta":"i","logprobs":[{"token":"i","logprob":-0.5,"bytes":[105],"top_logprobs":[{"token":"i","logprob":-0.5,"bytes":[105]}]}]}
    {"type":"response.output_text.done","sequence_number":6,"item_id":"msg_ID","output_index":0,"content_index":0,"text":"hi","logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"i","logprob":-0.5,"bytes":[105],"top_logprobs":[{"token":"i","logprob":-0.5,"bytes":[105]}]}]}
    {"type":"response.content_part.done","sequence_number":7,"item_id":"msg_ID","output_index":0,"content_index":0,"part":{"type":"output_text","text":"hi","annotations":[],"logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"i","logprob":-0.5,"bytes":[105],"top_logprobs":[{"token":"i","logprob":-0.5,"bytes":[105]}]}]}}
    {"type":"response.output_item.done","sequence_number":8,"output_index":0,"item":{"type":"message","id":"msg_ID","status":"completed","role":"assistant","content":[{"type":"output_text","text":"hi","annotations":[],"logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"i","logprob":-0.5,"bytes":[105],"top_logprobs":[{"token":"i","logprob":-0.5,"bytes":[105]}]}]}]}}
    {"type":"response.completed","sequence_number":9,"response":{"status":"completed","output":[{"type":"message","id":"msg_ID","status":"completed","role":"assistant","content":[{"type":"output_text","text":"hi","annotations":[],"logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"i","logprob":-0.5,"bytes":[105],"top_logprobs":[{"token":"i","logprob":-0.5,"bytes":[105]}]}]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":6}}}
    "#);
}

#[tokio::test]
async fn a_limit_makes_an_answer_incomplete() {
    let server = Server::ready();
    let answer = ask(&server, "abcdef".into(), json!({"max_output_tokens": 3})).await;
    assert_eq!(answer["status"], "incomplete");
    assert_eq!(
        answer["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(answer["output"][0]["content"][0]["text"], "abc");
    assert_eq!(answer["output"][0]["status"], "incomplete");
    assert_eq!(answer["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn a_conversation_goes_on_by_the_id_of_its_last_answer() {
    let server = Server::ready();
    let first = ask(&server, "one".into(), json!({"instructions": "Be kind."})).await;
    let more = json!({"previous_response_id": first["id"]});
    let second = ask(&server, json!([{"role": "user", "content": "two"}]), more).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    assert_eq!(second["instructions"], Value::Null);
    // "one", the answer to it, and "two", each with its line end; the instructions are not taken over.
    assert_eq!(second["usage"]["input_tokens"], 12);
    let more = json!({"previous_response_id": second["id"], "stream": true, "store": false});
    let stream = text(
        server
            .post("/v1/responses", body("three".into(), more))
            .await,
    )
    .await;
    let third = &events(&stream).pop().unwrap()["response"];
    assert_eq!(third["usage"]["input_tokens"], 12 + 4 + 6);

    let path = format!(
        "/v1/responses/{}/input_items",
        second["id"].as_str().unwrap()
    );
    let items = value(server.get(&format!("{path}?order=asc")).await).await;
    let texts = |items: &Value| {
        let items = items["data"].as_array().unwrap().iter();
        let told = items.map(|item| format!("{} {}", item["role"], item["content"][0]["text"]));
        told.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        texts(&items),
        r#""user" "one", "assistant" "one", "user" "two""#
    );
    assert_eq!(items["has_more"], false);
    let page = value(server.get(&format!("{path}?limit=2")).await).await;
    assert_eq!(texts(&page), r#""user" "two", "assistant" "one""#);
    assert_eq!(page["has_more"], true);
    let after = page["last_id"].as_str().unwrap();
    let page = value(server.get(&format!("{path}?limit=2&after={after}")).await).await;
    assert_eq!(texts(&page), r#""user" "one""#);
}

#[tokio::test]
async fn a_kept_item_can_be_referred_to() {
    let server = Server::ready();
    let first = ask(&server, "one".into(), json!({})).await;
    let reference = json!({"type": "item_reference", "id": first["output"][0]["id"]});
    let input =
        json!([{"role": "user", "content": "one"}, reference, {"role": "user", "content": "two"}]);
    let second = ask(&server, input, json!({})).await;
    assert_eq!(second["usage"]["input_tokens"], 12);
}

#[tokio::test]
async fn a_kept_answer_is_read_again_as_it_was_and_deleted_for_good() {
    let server = Server::ready();
    for stream in [false, true] {
        let response = server.post(
            "/v1/responses",
            body("hi".into(), json!({"stream": stream})),
        );
        let answer = text(response.await).await;
        let answer = if stream {
            events(&answer).pop().unwrap()["response"].clone()
        } else {
            serde_json::from_str(&answer).unwrap()
        };
        let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
        assert_eq!(value(server.get(&path).await).await, answer);
        let delete = async || {
            let request = Request::delete(&path).body(Body::empty()).unwrap();
            server.send(request).await
        };
        let deleted = value(delete().await).await;
        assert_eq!(
            deleted,
            json!({"id": answer["id"], "object": "response", "deleted": true})
        );
        assert_eq!(delete().await.status(), StatusCode::NOT_FOUND);
        assert_eq!(server.get(&path).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn what_shall_not_be_kept_is_not() {
    let server = Server::ready();
    let answer = ask(&server, "hi".into(), json!({"store": false})).await;
    assert_eq!(answer["store"], false);
    let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.status(), StatusCode::NOT_FOUND);

    let mut setup = Setup::default();
    setup.limits.responses_bytes = 0;
    let server = setup.start();
    let answer = ask(&server, "hi".into(), json!({"store": true})).await;
    assert_eq!(answer["store"], false, "the server keeps nothing");
    let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn one_key_cannot_tell_that_another_has_an_answer() {
    let keys = ["one", "two"].map(key).to_vec();
    let server = Setup {
        keys,
        ..Setup::default()
    }
    .start();
    let create = |secret: &str, more: Value| {
        keyed(
            Method::POST,
            "/v1/responses",
            secret,
            Some(body("hi".into(), more)),
        )
    };
    let answer = value(server.send(create("one", json!({}))).await).await;
    let id = answer["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    let said = async |request: Request<Body>| {
        let shown = show(server.send(request).await).await;
        shown.replace(id, "ID").replace("resp_none", "ID")
    };
    let none = "/v1/responses/resp_none";
    for (method, rest) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, "/cancel"),
        (Method::GET, "/input_items"),
    ] {
        let theirs = said(keyed(method.clone(), &format!("{path}{rest}"), "two", None)).await;
        assert_eq!(
            theirs,
            said(keyed(method, &format!("{none}{rest}"), "two", None)).await
        );
        assert!(theirs.starts_with("404"), "{theirs}");
    }
    let theirs = said(create("two", json!({"previous_response_id": id}))).await;
    assert_eq!(
        theirs,
        said(create("two", json!({"previous_response_id": "resp_none"}))).await
    );
    let mine = server.send(keyed(Method::GET, &path, "one", None)).await;
    assert_eq!(mine.status(), StatusCode::OK);
}

#[tokio::test]
async fn unknown_ids_are_told_in_openais_words() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_get("/v1/responses/resp_0").await, @r#"
    404 Not Found
    content-type: application/json

    {"error":{"message":"Response with id 'resp_0' not found.","type":"invalid_request_error","param":null,"code":null}}
    "#);
    let more = json!({"previous_response_id": "resp_0"});
    insta::assert_snapshot!(server.show_post("/v1/responses", body("hi".into(), more)).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"Previous response with id 'resp_0' not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}
    "#);
    let input = json!([{"type": "item_reference", "id": "msg_0"}]);
    insta::assert_snapshot!(server.show_post("/v1/responses", body(input, json!({}))).await, @r#"
    404 Not Found
    content-type: application/json

    {"error":{"message":"Item with id 'msg_0' not found.","type":"invalid_request_error","param":null,"code":null}}
    "#);
}

#[tokio::test]
async fn what_has_ended_cannot_be_cancelled_nor_streamed_again() {
    let server = Server::ready();
    let answer = ask(&server, "hi".into(), json!({})).await;
    let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    insta::assert_snapshot!(server.show_post(&format!("{path}/cancel"), json!({})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"Cannot cancel a synchronous response: it has ended. Hang up to end one that runs.","type":"invalid_request_error","param":null,"code":"invalid_value"}}
    "#);
    insta::assert_snapshot!(server.show_get(&format!("{path}?stream=true")).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"stream: a kept answer is not streamed again; leave it out","type":"invalid_request_error","param":"stream","code":"invalid_value"}}
    "#);
}

#[tokio::test]
async fn errors_of_the_chat_name_the_fields_of_this_endpoint() {
    let server = Server::ready();
    let schema = json!({"type": "object", "properties": {"a": {"type": "strange"}}});
    let requests = [
        json!({"input": []}),
        json!({"input": "x".repeat(300)}),
        json!({"input": "a", "model": "other"}),
        json!({"input": "a", "temperature": "hot"}),
        json!({"input": "a", "text": {"verbosity": "high"}}),
        json!({"input": "a", "text": {"format": {"type": "json_schema", "name": "n", "strict": true, "schema": schema}}}),
        json!({"input": "a", "tools": [{"type": "web_search"}, {"type": "function", "name": ""}]}),
        json!({"input": "a", "tools": [{"type": "web_search"}], "tool_choice": "required"}),
        json!({"messages": [{"role": "user", "content": "a"}]}),
        json!({"input": "a", "response_format": {"type": "text"}}),
    ];
    let ask = async |request| server.post("/v1/responses", request).await;
    let told = refusals(ask, requests).await;
    insta::assert_snapshot!(told, @r#"
    400 input invalid_value | input: expected at least one message
    400 input context_length_exceeded | This model's maximum context length is 256 tokens. However, your input resulted in 301 tokens. Please reduce the length of the input.
    404 model model_not_found | the model `other` does not exist; this server serves `org/fake`
    400 temperature invalid_value | temperature: expected a number from 0 to 5, got "hot"
    400 text.verbosity invalid_value | text.verbosity: this server does not support it; leave it out
    400 text.format.schema#/properties/a/type invalid_value | text.format.schema#/properties/a/type: Invalid type: strange
    400 tools[1].name invalid_value | tools[1].name: expected a string of 1 to 256 bytes, got ""
    400 tool_choice invalid_value | tool_choice: demands a tool call, but there are no tools
    400 messages invalid_value | messages: not a field of this endpoint; send `input`
    400 response_format invalid_value | response_format: not a field of this endpoint; send `text.format`
    "#);
}

#[tokio::test]
async fn tools_that_are_left_out_are_told_in_a_header() {
    let server = Server::ready();
    let more = json!({"tools": [{"type": "web_search", "external_web_access": false}]});
    let response = server.post("/v1/responses", body("hi".into(), more)).await;
    assert_eq!(response.status(), StatusCode::OK);
    insta::assert_snapshot!(response.headers()["x-warning"].to_str().unwrap(), @r#"tools[0]: the model is not offered tools of type "web_search""#);
}

#[tokio::test]
async fn counted_tokens_are_those_that_are_read() {
    let server = Server::ready();
    let first = ask(&server, "one".into(), json!({})).await;
    let request =
        json!({"input": "two", "instructions": "Be kind.", "previous_response_id": first["id"]});
    let counted = value(
        server
            .post("/v1/responses/input_tokens", request.clone())
            .await,
    )
    .await;
    assert_eq!(counted["object"], "response.input_tokens");
    let answer = value(server.post("/v1/responses", request).await).await;
    assert_eq!(counted["input_tokens"], answer["usage"]["input_tokens"]);
}

#[tokio::test]
async fn whoever_hangs_up_frees_the_sequence_and_nothing_is_kept() {
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    permits.send(()).unwrap();
    let response = server
        .post("/v1/responses", body("hi".into(), json!({"stream": true})))
        .await;
    let mut frames = response.into_body().into_data_stream();
    let first = frames.next().await.unwrap().unwrap();
    let events = events(std::str::from_utf8(&first).unwrap());
    let id = events[0]["response"]["id"].as_str().unwrap().to_owned();
    drop(frames);
    drop(permits);
    server.idle().await;
    let path = format!("/v1/responses/{id}");
    assert_eq!(server.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_in_its_last_event() {
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    permits.send(()).unwrap();
    let response = server
        .post("/v1/responses", body("hi".into(), json!({"stream": true})))
        .await;
    server.engine.give_up();
    let last = events(&text(response).await).pop().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "engine_stopped");
    drop(permits);
}
