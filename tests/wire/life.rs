//! What happens around an answer: clients that go away, silence, shutdown, and the line in the log.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use llm_server::api::Stage;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use crate::support::{Server, Setup, chat_body, gated, text};

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

async fn until_running(server: &Server, running: u32) {
    while server.engine.busy().running != running {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_in_mid_stream_frees_its_sequence() {
    let (fake, permits) = gated(1);
    let server = Setup { fake, ..Setup::default() }.start();
    let mut socket = call(&server, &"x".repeat(100), json!({"stream": true})).await;
    for _ in 0..10 {
        permits.send(()).unwrap();
    }
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"content\":\"x\"") {
        assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0);
    }
    assert_eq!(server.engine.busy().running, 1);
    drop(socket);
    permits.send(()).unwrap();
    // With a permit at a time the answer would need many more than this loop gives out.
    for _ in 0..50 {
        if server.engine.busy().running == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        permits.send(()).unwrap();
    }
    assert_eq!(server.engine.busy().running, 0);
}

#[tokio::test]
async fn clients_that_hang_up_while_waiting_leave_the_queue() {
    let (fake, permits) = gated(1);
    let server = Setup { fake, ..Setup::default() }.start();
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
    let mut setup = Setup { fake, ..Setup::default() };
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
    let server = Setup { fake, ..Setup::default() }.start();
    permits.send(()).unwrap();
    let response = server.chat("hi", json!({"stream": true})).await;
    server.stage.send_replace(Stage::Draining);
    drop(permits);
    assert!(text(response).await.ends_with("data: [DONE]\n\n"));
}

/// Collects log lines as JSON.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn requests(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let ours = text.lines().filter(|line| line.contains(" request: "));
        ours.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn every_request_leaves_one_line_however_it_ends() {
    let lines = Lines::default();
    let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(format));
    let (fake, permits) = gated(1);
    let server = Setup { fake, ..Setup::default() }.start();

    // Hung up before there was an answer.
    let mut waiting = Box::pin(server.chat("a", json!({})));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    assert!(lines.requests()[0].contains("outcome=\"hung up\""));
    assert!(!lines.requests()[0].contains("status="));

    // Hung up in mid stream.
    drop(permits);
    let streaming = server.chat("abc", json!({"stream": true})).await;
    assert_eq!(lines.requests().len(), 1, "the stream still runs");
    drop(streaming);
    let line = &lines.requests()[1];
    assert!(line.contains("status=200") && line.contains("ttft_ms="), "{line}");

    text(server.chat("abc", json!({})).await).await;
    let line = &lines.requests()[2];
    for part in [
        "id=\"req_",
        "route=\"/v1/chat/completions\"",
        "status=200",
        "outcome=\"stop\"",
        "model=\"org/fake\"",
        "prompt_tokens=4",
        "cached_tokens=",
        "completion_tokens=4",
        "queued_ms=",
        "prefill_ms=",
        "decode_ms=",
        "ttft_ms=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    server.get("/nowhere").await;
    assert!(lines.requests()[3].contains("outcome=\"refused\""));
    assert_eq!(lines.requests().len(), 4);
}
