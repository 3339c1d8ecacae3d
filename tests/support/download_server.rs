//! An HTTP server on 127.0.0.1 that answers as badly as a test wants, and remembers what it was asked.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query; for `CONNECT`, host and port.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The first byte of `Range: bytes=N-`.
    pub(crate) fn range_start(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// What the server sends back; the connection is closed after it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// `None`: no length is announced, the end of the connection ends the body.
    announced: Option<usize>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    /// Keep the connection open and silent until the client goes away.
    Silence,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            announced: Some(body.len()),
            body,
            end: End::Close,
        }
    }

    pub(crate) fn redirect(location: String) -> Self {
        Self::new(302, "").with("Location", location)
    }

    /// The file as a good server gives it: the whole, or the part asked for.
    pub(crate) fn file(request: &Request, content: &[u8], etag: &str) -> Self {
        let same = request.header("if-range").is_none_or(|known| known == etag);
        let answer = match request.range_start().filter(|_| same) {
            Some(start) if start >= content.len() => Self::new(416, ""),
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                Self::new(206, &content[start..]).with("Content-Range", range)
            }
            None => Self::new(200, content),
        };
        answer.with("ETag", etag.to_owned())
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Announces the whole body but sends only its first `bytes`.
    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    /// Sends the first `bytes` of the body and then nothing more, without closing.
    pub(crate) fn silent_after(self, bytes: usize) -> Self {
        Self {
            end: End::Silence,
            ..self.cut_after(bytes)
        }
    }

    /// Announces another length than the body has.
    pub(crate) fn announcing(self, length: usize) -> Self {
        Self {
            announced: Some(length),
            ..self
        }
    }

    pub(crate) fn without_length(self) -> Self {
        Self {
            announced: None,
            ..self
        }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", self.status);
        if let Some(length) = self.announced {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

/// Runs until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` gets each request and how many came before it.
    pub(crate) fn start(
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = std::thread::spawn({
            let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
            let answer = Arc::new(answer);
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                    // A client that goes away early is part of the game.
                    std::thread::spawn(move || {
                        stream.and_then(|stream| converse(stream, &requests, &*answer))
                    });
                }
            }
        });
        Self {
            address,
            requests,
            stop,
            accepting: Some(accepting),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test panics here").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn converse(
    mut stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request, usize) -> Answer + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let Some(request) = read_request(&mut reader)? else {
            return Ok(());
        };
        let before = {
            let mut all = requests.lock().expect("no test panics here");
            all.push(request.clone());
            all.len() - 1
        };
        if request.method == "CONNECT" {
            // As a proxy, this server is every host itself.
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            continue;
        }
        let answer = answer(&request, before);
        answer.send(&mut stream)?;
        if answer.end == End::Silence {
            // Ends when the client hangs up.
            let _ = read_request(&mut reader)?;
        }
        return Ok(());
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next(), words.next());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(method.zip(target).map(|(method, target)| Request {
        method,
        target,
        headers,
    }))
}
