//! What happens around an answer: clients that go away, silence, shutdown, and the line in the log.

use std::time::Duration;

use futures_util::StreamExt;
use llm_server::api::Stage;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Server, Setup, chat_body, collect_log, gated, request_lines, text};

/// A socket with one request sent over it.
async fn call(server: &Server, message: &str, more: Value) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut socket = TcpStream::connect(address).await.unwrap();
    let body = chat_body(message, more).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

pub(crate) async fn until_running(server: &Server, running: u32) {
    while server.engine.busy().running != running {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_in_mid_stream_frees_its_sequence_within_one_step() {
    collect_log();
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    let mut socket = call(&server, &"x".repeat(100), json!({"stream": true})).await;
    for _ in 0..10 {
        permits.send(()).unwrap();
    }
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"content\":\"x\"") {
        assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0);
    }
    drop(socket);
    while request_lines().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(request_lines()[0].contains("outcome=\"hung_up\""));
    assert_eq!(server.engine.busy().running, 1);
    // The step that is under way ends, and there is no other.
    permits.send(()).unwrap();
    server.idle().await;
}

#[tokio::test]
async fn clients_that_hang_up_while_waiting_leave_the_queue() {
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    let holder = call(&server, "a", json!({})).await;
    until_running(&server, 1).await;
    let waiting = call(&server, "b", json!({})).await;
    while server.engine.busy().queued != 1 {
        tokio::task::yield_now().await;
    }
    drop(waiting);
    drop(holder);
    drop(permits);
    server.idle().await;
}

#[tokio::test]
async fn a_silent_stream_pings_and_then_goes_on() {
    let (fake, permits) = gated(1);
    let mut setup = Setup {
        fake,
        ..Setup::default()
    };
    setup.limits.keep_alive = Duration::from_millis(5);
    let server = setup.start();
    let response = server.chat("hi", json!({"stream": true})).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut frames = response.into_body().into_data_stream();
    for _ in 0..2 {
        assert_eq!(frames.next().await.unwrap().unwrap(), ": ping\n\n");
    }
    drop(permits);
    let mut rest = String::new();
    while let Some(frame) = frames.next().await {
        rest.push_str(std::str::from_utf8(&frame.unwrap()).unwrap());
    }
    assert!(rest.contains("\"content\":\"h\""));
    assert!(rest.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stream_goes_on_while_the_server_drains() {
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    permits.send(()).unwrap();
    let response = server.chat("hi", json!({"stream": true})).await;
    server.stage.send_replace(Stage::Draining);
    drop(permits);
    assert!(text(response).await.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn streams_of_an_engine_that_was_given_up_end_with_an_error_event() {
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    permits.send(()).unwrap();
    let response = server.chat("hi", json!({"stream": true})).await;
    // The model hangs in its next step, and the engine thread with it.
    server.engine.give_up();
    let answer = text(response).await;
    let last = answer.trim_end().lines().last().unwrap_or_default();
    assert!(
        last.starts_with("data: {\"error\":"),
        "the last event was {last:?}"
    );
    drop(permits);
}

#[tokio::test]
async fn every_request_leaves_one_line_however_it_ends() {
    collect_log();
    let (fake, permits) = gated(1);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();

    // Hung up before there was an answer.
    let mut waiting = Box::pin(server.chat("a", json!({})));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    assert!(request_lines()[0].contains("outcome=\"hung_up\""));
    assert!(!request_lines()[0].contains("status="));

    // Hung up in mid stream: the first permit is for the step that still serves the request above.
    permits.send(()).unwrap();
    permits.send(()).unwrap();
    let streaming = server.chat("abc", json!({"stream": true})).await;
    assert_eq!(request_lines().len(), 1, "the stream still runs");
    drop(streaming);
    drop(permits);
    let line = &request_lines()[1];
    assert!(line.contains("outcome=\"hung_up\""), "{line}");
    assert!(
        line.contains("status=200") && line.contains("ttft_us="),
        "{line}"
    );

    text(server.chat("abc", json!({})).await).await;
    let line = &request_lines()[2];
    for part in [
        "request_id=\"req_",
        "route=\"/v1/chat/completions\"",
        "status=200",
        "outcome=\"stop\"",
        "model=\"org/fake\"",
        "tokens_in=4",
        "cached_tokens=",
        "tokens_out=4",
        "queued_us=",
        "prefill_us=",
        "decode_us=",
        "ttft_us=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    server.get("/nowhere").await;
    assert!(request_lines()[3].contains("outcome=\"unknown_url\""));
    assert_eq!(request_lines().len(), 4);
}
