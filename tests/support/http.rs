//! As much of HTTP as the tests of the process need, with deadlines.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use super::systemd::LONG;

/// Status and body of a GET request.
pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    get_over(connect(address), path)
}

/// As [`get`], with an API key.
pub(crate) fn get_with_key(address: &str, path: &str, key: &str) -> (u16, String) {
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    let mut answer = Stream::ask(connect(address), &head);
    (answer.status, answer.rest())
}

/// As [`get`], over any connection.
pub(crate) fn get_over(connection: impl Read + Write + 'static, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let mut answer = Stream::ask(connection, &head);
    (answer.status, answer.rest())
}

/// Status and body of a POST request with a JSON body.
pub(crate) fn post(address: &str, path: &str, body: &str) -> (u16, String) {
    let mut answer = Stream::open(address, path, body);
    (answer.status, answer.rest())
}

/// An answer that is still coming in.
pub(crate) struct Stream {
    reader: BufReader<Box<dyn Read>>,
    pub(crate) status: u16,
    pub(crate) head: String,
}

impl Stream {
    /// Sends a POST request and reads the head of the answer.
    pub(crate) fn open(address: &str, path: &str, body: &str) -> Self {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::ask(connect(address), &request)
    }

    fn ask(mut connection: impl Read + Write + 'static, request: &str) -> Self {
        connection
            .write_all(request.as_bytes())
            .expect("the request can be sent");
        let mut reader = BufReader::new(Box::new(connection) as Box<dyn Read>);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).expect("the head of an answer");
            assert_ne!(read, 0, "closed without an answer: {head:?}");
        }
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        Self {
            reader,
            status,
            head,
        }
    }

    /// The next `data:` line of a stream of events.
    pub(crate) fn event(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line).expect("another line");
            assert_ne!(read, 0, "the stream ended");
            if line.starts_with("data: ") {
                return line;
            }
        }
    }

    /// All that is left, without the frames of chunked transfer.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.reader
            .read_to_end(&mut rest)
            .expect("the rest of the answer");
        let rest = String::from_utf8_lossy(&rest).into_owned();
        // Frames stand on lines of their own, as hex numbers; no line of these answers looks like one.
        let is_frame =
            |line: &str| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let lines = rest.split("\r\n").filter(|line| !is_frame(line));
        lines.collect::<Vec<_>>().concat()
    }
}

fn connect(address: &str) -> TcpStream {
    let connection = TcpStream::connect(address).expect("the server accepts connections");
    connection
        .set_read_timeout(Some(LONG))
        .expect("a socket option");
    connection
}
