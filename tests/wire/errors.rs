//! Every way a request fails: the status, the one shape of the body, and what headers add.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use futures_util::stream;
use llm_server::{
    api::{Key, Stage},
    config::Origins,
    engine::{
        Enough, Job, Sampling,
        fake::{Fake, Fault},
        model::DecodeError,
    },
};
use serde_json::{Value, json};

use crate::life::until_running;
use crate::support::{CONTEXT, PANIC, Server, Setup, gated, key, post, show, text, value};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn unknown_paths_and_wrong_methods() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_get("/v2/nothing").await, @r#"
    404 Not Found
    content-type: application/json

    {"error":{"message":"there is no GET /v2/nothing here","type":"invalid_request_error","param":null,"code":"unknown_url"}}
    "#);
    insta::assert_snapshot!(server.show_get(CHAT).await, @r#"
    405 Method Not Allowed
    content-type: application/json
    allow: POST

    {"error":{"message":"/v1/chat/completions does not answer to GET","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}
    "#);
}

#[tokio::test]
async fn bodies_that_are_no_json_object() {
    let server = Server::ready();
    let response = server.send(post(CHAT, "{\"messages\":\n [}")).await;
    insta::assert_snapshot!(show(response).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the body is not valid JSON: expected value at line 2 column 3","type":"invalid_request_error","param":null,"code":null}}
    "#);
    let response = server.send(post(CHAT, "[]")).await;
    insta::assert_snapshot!(show(response).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the body is not valid JSON: an object is expected","type":"invalid_request_error","param":null,"code":null}}
    "#);
    let response = server.send(post(CHAT, Body::empty())).await;
    insta::assert_snapshot!(show(response).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the body is not valid JSON: EOF while parsing a value at line 1 column 0","type":"invalid_request_error","param":null,"code":null}}
    "#);
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_the_body() {
    let server = Server::ready();
    let body = format!("\u{FEFF}{}", json!({"prompt": "a\n"}));
    let response = server.send(post("/v1/completions", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_compressed_body_is_refused_as_such() {
    let server = Server::ready();
    let encoded = |path: &str, encoding: &str| {
        let mut request = post(path, json!({"prompt": "a\n"}).to_string());
        let encoding = encoding.parse().unwrap();
        request.headers_mut().insert("content-encoding", encoding);
        request
    };
    insta::assert_snapshot!(show(server.send(encoded(CHAT, "gzip")).await).await, @r#"
    415 Unsupported Media Type
    content-type: application/json
    accept-encoding: identity

    {"error":{"message":"the body is encoded as `gzip`, which is not read here; send it without `content-encoding`","type":"invalid_request_error","param":null,"code":"unsupported_encoding"}}
    "#);
    let told = value(server.send(encoded("/v1/messages", "br")).await).await;
    assert_eq!(told["error"]["type"], "invalid_request_error");
    let plain = server.send(encoded("/v1/completions", "identity")).await;
    assert_eq!(plain.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_content_type_does_not_matter() {
    let server = Server::ready();
    let body = json!({"prompt": "a\n"}).to_string();
    let request = Request::post("/v1/completions")
        .body(Body::from(body))
        .unwrap();
    assert_eq!(server.send(request).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let server = Server::ready();
    let response = server.send(post(CHAT, vec![b' '; (64 << 10) + 1])).await;
    insta::assert_snapshot!(show(response).await, @r#"
    413 Payload Too Large
    content-type: application/json

    {"error":{"message":"the body is larger than 65536 bytes","type":"invalid_request_error","param":null,"code":"request_too_large"}}
    "#);
}

#[tokio::test]
async fn a_body_that_does_not_arrive() {
    let mut setup = Setup::default();
    setup.limits.receive = Duration::from_millis(10);
    let never = stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let response = setup
        .start()
        .send(post(CHAT, Body::from_stream(never)))
        .await;
    insta::assert_snapshot!(show(response).await, @r#"
    408 Request Timeout
    content-type: application/json

    {"error":{"message":"the body was not received within 10ms","type":"timeout_error","param":null,"code":null}}
    "#);
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let broken = stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("reset by peer"))]);
    let response = Server::ready()
        .send(post(CHAT, Body::from_stream(broken)))
        .await;
    insta::assert_snapshot!(show(response).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the body broke off: reset by peer","type":"invalid_request_error","param":null,"code":null}}
    "#);
}

#[tokio::test]
async fn keys_are_asked_for_when_there_are_any() {
    let server = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    insta::assert_snapshot!(server.show_get("/v1/models").await, @r#"
    401 Unauthorized
    content-type: application/json
    www-authenticate: Bearer

    {"error":{"message":"an API key is required: send it as `Authorization: Bearer KEY` or in the header `x-api-key`","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}
    "#);
    let with = |name: &str, value: &str| {
        let request = Request::get("/v1/models").header(name, value);
        server.send(request.body(Body::empty()).unwrap())
    };
    insta::assert_snapshot!(show(with("authorization", "Bearer sk-2").await).await, @r#"
    401 Unauthorized
    content-type: application/json
    www-authenticate: Bearer

    {"error":{"message":"the API key is not one that this server accepts","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}
    "#);
    assert_eq!(
        with("authorization", "bearer sk-1").await.status(),
        StatusCode::OK
    );
    assert_eq!(with("x-api-key", "sk-1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn any_key_will_do_when_there_are_none() {
    let request = Request::get("/v1/models").header("authorization", "Bearer anything");
    let response = Server::ready()
        .send(request.body(Body::empty()).unwrap())
        .await;
    assert_eq!(response.status(), StatusCode::OK);
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
    let ask = || server.chat("a", json!({}));
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

    {"error":{"message":"the server is busy: 1 requests are waiting already","type":"rate_limit_error","param":null,"code":"queue_full"}}
    "#);
}

#[tokio::test]
async fn a_wait_in_the_queue_that_takes_too_long() {
    let mut setup = Setup::default();
    // Whatever the engine does, it is later than now.
    setup.limits.queue_wait = Duration::ZERO;
    let server = setup.start();
    insta::assert_snapshot!(show(server.chat("a", json!({})).await).await, @r#"
    429 Too Many Requests
    content-type: application/json
    retry-after: 1
    retry-after-ms: 1000

    {"error":{"message":"the server is busy: no sequence became free within 0ns","type":"rate_limit_error","param":null,"code":"queue_timeout"}}
    "#);
}

#[tokio::test]
async fn a_stream_that_waits_in_vain_is_refused_with_a_status_however_long_it_waited() {
    let (fake, permits) = gated(1);
    let mut setup = Setup {
        fake,
        ..Setup::default()
    };
    setup.limits.queue_wait = Duration::ZERO;
    setup.limits.keep_alive = Duration::from_millis(1);
    let server = setup.start();
    // Holds the only sequence, in a step that does not end.
    let _holder = server.engine.submit(Job {
        prompt: vec![97],
        media: Vec::new(),
        max_tokens: 1,
        shift: None,
        forgotten: 0,
        sampling: Sampling::default(),
        grammar: None,
        stop: Vec::new(),
        enough: Enough::default(),
        visible: Vec::new(),
        stop_tokens: Vec::new(),
        prediction: Vec::new(),
        ignore_eos: false,
        score_prompt: false,
        min_tokens: 0,
        logprobs: None,
        tenant: Some(0),
        adapters: llm_server::engine::Adapters::default(),
        claimant: llm_server::engine::Claimant::default(),
        queue_wait: Duration::from_hours(1),
        deadline: Duration::from_hours(1),
    });
    until_running(&server, 1).await;
    let mut streamed = Box::pin(server.chat("b", json!({"stream": true})));
    // Were its headers out after this silence, the refusal could only be an event of a 200.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(20) {
        assert!(futures_util::poll!(&mut streamed).is_pending());
        tokio::task::yield_now().await;
    }
    permits.send(()).unwrap();
    assert_eq!(streamed.await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_server_that_shuts_down() {
    let server = Server::ready();
    server.stage.send_replace(Stage::Draining);
    insta::assert_snapshot!(show(server.chat("a", json!({})).await).await, @r#"
    503 Service Unavailable
    content-type: application/json
    retry-after: 2
    retry-after-ms: 2000

    {"error":{"message":"the server is shutting down","type":"unavailable_error","param":null,"code":"shutting_down"}}
    "#);
}

#[tokio::test]
async fn an_engine_that_was_halted() {
    let server = Server::ready();
    server.engine.halt();
    let response = server.chat("a", json!({})).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_grammar_that_cannot_be_parsed_is_the_requests_fault_also_for_a_stream() {
    let server = Server::ready();
    let ask = |stream: bool| {
        let body = json!({"prompt": "a\n", "grammar": "bad", "stream": stream});
        server.post("/v1/completions", body)
    };
    insta::assert_snapshot!(show(ask(false).await).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the grammar cannot be parsed","type":"invalid_request_error","param":null,"code":"invalid_value"}}
    "#);
    assert_eq!(ask(true).await.status(), StatusCode::BAD_REQUEST);
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
    insta::assert_snapshot!(show(server.chat("a", json!({})).await).await, @r#"
    504 Gateway Timeout
    content-type: application/json
    x-should-retry: false

    {"error":{"message":"the request ran longer than the 0ns that this server allows","type":"timeout_error","param":null,"code":"deadline_exceeded"}}
    "#);
}

/// Computes `batches` batches, then fails.
fn failing_after(batches: usize) -> Fake {
    let mut left = batches;
    let fault: Fault = Box::new(move |_| {
        if left == 0 {
            return Some(DecodeError::Refused("device lost".to_owned()));
        }
        left -= 1;
        None
    });
    Fake::new(1, CONTEXT).with_fault(fault)
}

#[tokio::test]
async fn a_decode_that_fails_before_the_first_token_is_a_plain_error() {
    let server = Setup {
        fake: failing_after(0),
        ..Setup::default()
    }
    .start();
    insta::assert_snapshot!(show(server.chat("a", json!({})).await).await, @r#"
    500 Internal Server Error
    content-type: application/json

    {"error":{"message":"the server failed to answer this request","type":"server_error","param":null,"code":null}}
    "#);
    let streamed = server.chat("a", json!({"stream": true})).await;
    assert_eq!(streamed.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_decode_that_fails_in_mid_stream_is_an_event_and_no_done() {
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
    let fake = Fake::new(1, CONTEXT).with_fault(fault);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    let response = server.chat("abc", json!({"stream": true})).await;
    assert_eq!(response.status(), StatusCode::OK);
    drop(fail);
    insta::assert_snapshot!(show(response).await, @r#"
    200 OK
    content-type: text/event-stream
    cache-control: no-cache
    x-accel-buffering: no

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}]}

    data: {"error":{"message":"the server failed to answer this request","type":"server_error","param":null,"code":null}}
    "#);
}

#[tokio::test]
async fn a_bug_is_a_500_and_nothing_more() {
    let server = Server::ready();
    insta::assert_snapshot!(show(server.chat(PANIC, json!({})).await).await, @r#"
    500 Internal Server Error
    content-type: application/json

    {"error":{"message":"the server failed to answer this request","type":"server_error","param":null,"code":null}}
    "#);
    let padding = "x".repeat(20 << 10);
    let elsewhere = server.chat(PANIC, json!({"some_new_field": padding})).await;
    assert_eq!(elsewhere.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(server.chat("a", json!({})).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_error_carries_the_headers_that_browsers_need() {
    let server = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    let request = Request::post(CHAT).header("origin", "https://app.example");
    let response = server.send(request.body(Body::empty()).unwrap()).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap();
    assert!(header("vary").contains("origin"));
    for name in ["x-request-id", "retry-after", "retry-after-ms"] {
        assert!(header("access-control-expose-headers").contains(name));
    }
    insta::assert_snapshot!(show(response).await, @r#"
    401 Unauthorized
    content-type: application/json
    www-authenticate: Bearer
    access-control-allow-origin: https://app.example

    {"error":{"message":"an API key is required: send it as `Authorization: Bearer KEY` or in the header `x-api-key`","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}
    "#);
}

#[tokio::test]
async fn only_pages_of_the_listed_origins_may_read_answers() {
    let ours = "https://chat.example";
    let server = Setup {
        origins: Origins::Listed(vec![ours.to_owned()]),
        ..Setup::default()
    }
    .start();
    for (origin, allowed) in [(ours, Some(ours)), ("https://chat.example.org", None)] {
        let request = Request::get("/health").header("origin", origin);
        let response = server.send(request.body(Body::empty()).unwrap()).await;
        let told = response.headers().get("access-control-allow-origin");
        assert_eq!(told.map(|told| told.to_str().unwrap()), allowed);
    }
}

#[tokio::test]
async fn a_key_for_some_routes_is_told_which_it_may_not_use() {
    let narrow = vec!["/v1/models*".to_owned()];
    let server = Setup {
        keys: vec![Key::new("reader".to_owned(), "sk-1", narrow, 1)],
        ..Setup::default()
    }
    .start();
    let get = |path: &str| {
        let request = Request::get(path).header("x-api-key", "sk-1");
        server.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(get("/v1/models").await.status(), StatusCode::OK);
    assert_eq!(get("/v1/models/org/fake").await.status(), StatusCode::OK);
    insta::assert_snapshot!(show(get("/props").await).await, @r#"
    403 Forbidden
    content-type: application/json

    {"error":{"message":"the API key `reader` may not use /props","type":"permission_error","param":null,"code":"route_not_allowed"}}
    "#);
}

#[tokio::test]
async fn a_preflight_needs_no_key_on_any_path() {
    let server = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    let asked = "authorization,content-type,x-api-key,anthropic-version,x-stainless-os";
    for path in [CHAT, "/v1/models/org/fake", "/health", "/nowhere"] {
        let request = Request::builder()
            .method(Method::OPTIONS)
            .uri(path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "DELETE")
            .header("access-control-request-headers", asked);
        let response = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let headers = response.headers();
        assert_eq!(
            headers["access-control-allow-origin"],
            "https://app.example"
        );
        assert_eq!(headers["access-control-allow-headers"], asked);
        let methods = headers["access-control-allow-methods"].to_str().unwrap();
        assert!(methods.contains("DELETE") && methods.contains("POST"));
        assert!(headers["vary"].to_str().unwrap().contains("origin"));
    }
}

#[tokio::test]
async fn request_ids_are_echoed_when_sane_and_made_otherwise() {
    let server = Server::ready();
    let id = async |sent: Option<&str>| {
        let mut request = Request::get("/nowhere");
        if let Some(sent) = sent {
            request = request.header("x-request-id", sent);
        }
        let response = server.send(request.body(Body::empty()).unwrap()).await;
        response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id(Some("mine-1")).await, "mine-1");
    let made = id(Some("not mine")).await;
    assert!(made.starts_with("req_"));
    assert_ne!(made, id(None).await);
}

#[tokio::test]
async fn every_error_body_has_the_same_four_fields() {
    let server = Server::ready();
    let bodies: [Value; 3] = [
        value(server.get("/nowhere").await).await,
        value(server.chat("a", json!({"n": 0})).await).await,
        serde_json::from_str(&text(server.send(post(CHAT, "{")).await).await).unwrap(),
    ];
    for body in bodies {
        let fields: Vec<_> = body["error"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["message", "type", "param", "code"]);
    }
}
