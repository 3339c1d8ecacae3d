//! A server that answers completions with whatever bytes a test wants, right or wrong.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

/// Listens until the test process ends.
pub(crate) struct SseServer {
    pub(crate) url: String,
    /// Bodies of the requests, in order.
    asked: Arc<Mutex<Vec<Value>>>,
}

impl SseServer {
    /// Answers `GET /v1/models` with a model and every POST with `answer`, then closes the connection.
    pub(crate) fn start(answer: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, answer) = (Arc::clone(&asked), answer.into());
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A client that is gone is the client's affair.
                let _ = serve(connection, &answer, &heard);
            }
        });
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("no panic while held").clone()
    }
}

fn serve(
    connection: TcpStream,
    answer: &str,
    heard: &Mutex<Vec<Value>>,
) -> Result<(), std::io::Error> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut connection = connection;
    if first.starts_with("GET /v1/models ") {
        let models = r#"{"data": [{"id": "odd"}]}"#;
        return write!(connection, "{}{models}", head(200, "application/json"));
    }
    let body = serde_json::from_slice(&body).unwrap_or_default();
    heard.lock().expect("no panic while held").push(body);
    connection.write_all(answer.as_bytes())
}

/// The head of an answer whose body ends with the connection.
pub(crate) fn head(status: u16, kind: &str) -> String {
    format!("HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n")
}

/// A whole stream: these texts one event each, then the end.
pub(crate) fn stream(texts: &[&str], usage: &str) -> String {
    let event = |text: &str, finish: &str| {
        format!("data: {{\"choices\":[{{\"text\":\"{text}\",\"finish_reason\":{finish}}}]}}\n\n")
    };
    let mut answer = head(200, "text/event-stream");
    for text in texts {
        answer += &event(text, "null");
    }
    answer + &event("", "\"length\"") + usage + "data: [DONE]\n\n"
}
