//! Images by their addresses: fetched from a server with TLS on a public address, and from nowhere else.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::http::StatusCode;
use llm_server::{
    api::Internet,
    config::{ImagesConfig, RemoteImages},
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use ureq::{
    Error,
    config::Config,
    http::Uri,
    tls::{Certificate, RootCerts},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::{
    images::{message, picture, png, refusal, seeing_setup, usage, words},
    support::{Server, Setup, value},
};

const PUBLIC: &str = "93.184.216.34";

/// A name server with a few names; `rebind.example` is public the first time only.
#[derive(Debug, Default)]
struct Names(AtomicUsize);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let rebound = || self.0.fetch_add(1, Ordering::Relaxed) > 0;
        let host = uri.host().unwrap_or_default();
        let addresses: &[&str] = match host {
            "rebind.example" if rebound() => &["127.0.0.1"],
            "pictures.example" | "elsewhere.example" | "rebind.example" => &[PUBLIC],
            "inside.example" => &["10.0.0.1"],
            "both.example" => &[PUBLIC, "127.0.0.1"],
            "cloud.example" => &["169.254.169.254"],
            "mapped.example" => &["::ffff:10.0.0.1"],
            "nowhere.example" => return Err(Error::HostNotFound),
            literal => &[literal],
        };
        let mut found = self.empty();
        for address in addresses {
            let address = address.trim_matches(['[', ']']);
            let address: IpAddr = address.parse().map_err(|_| Error::HostNotFound)?;
            found.push(SocketAddr::new(address, 443));
        }
        Ok(found)
    }
}

/// What stands in for the internet, and who was connected to.
struct Outside {
    internet: Internet,
    dialled: Arc<Mutex<Vec<IpAddr>>>,
}

impl Outside {
    fn start() -> Self {
        let names = ["pictures.example", "rebind.example", "both.example"];
        let signed = rcgen::generate_simple_self_signed(names.map(String::from)).unwrap();
        let certificate = signed.cert.der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // A client that does not like what it gets is gone.
                thread::spawn(move || serve(connection, config).ok());
            }
        });
        let dialled = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&dialled);
        let route = move |address: SocketAddr| {
            heard.lock().unwrap().push(address.ip());
            server
        };
        let roots = RootCerts::new_with_certs(&[Certificate::from_der(&certificate).to_owned()]);
        Self {
            internet: Internet::new(Names::default(), route).trusting(roots),
            dialled,
        }
    }

    fn server(&self, images: ImagesConfig) -> Server {
        let setup = Setup {
            images,
            internet: self.internet.clone(),
            ..seeing_setup()
        };
        setup.start()
    }

    fn dialled(&self) -> Vec<IpAddr> {
        std::mem::take(&mut self.dialled.lock().unwrap())
    }
}

fn serve(connection: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(tls, connection));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
    let out = reader.get_mut();
    let file = png(200, 8);
    let moved = |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0");
    let (head, body) = match first.split(' ').nth(1).unwrap_or_default() {
        "/cat.png" => (
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}", file.len()),
            file,
        ),
        "/page" => (
            "HTTP/1.1 200 OK\r\nContent-Type: image/png".into(),
            b"<html>".to_vec(),
        ),
        "/endless" => ("HTTP/1.1 200 OK".into(), vec![0; 1 << 20]),
        "/announced" => (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999".into(),
            Vec::new(),
        ),
        // Its head is said, and then nothing more.
        "/silent" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
            out.flush()?;
            return out.read_line_of_nothing();
        }
        "/1" => (moved("/2"), Vec::new()),
        "/2" => (moved("../cat.png"), Vec::new()),
        "/loop" => (moved("https://pictures.example/loop"), Vec::new()),
        "/inward" => (moved("https://inside.example/"), Vec::new()),
        "/plain" => (moved("http://pictures.example/cat.png"), Vec::new()),
        "/elsewhere" => (moved("https://elsewhere.example/cat.png"), Vec::new()),
        "/rebind" => (moved("https://rebind.example/cat.png"), Vec::new()),
        _ => (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0".into(),
            Vec::new(),
        ),
    };
    out.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    out.write_all(&body)?;
    out.conn.send_close_notify();
    out.flush()
}

trait UntilClosed {
    /// Waits until the other side has gone.
    fn read_line_of_nothing(&mut self) -> std::io::Result<()>;
}

impl<T: std::io::Read> UntilClosed for T {
    fn read_line_of_nothing(&mut self) -> std::io::Result<()> {
        let mut byte = [0];
        while self.read(&mut byte)? > 0 {}
        Ok(())
    }
}

fn https() -> ImagesConfig {
    ImagesConfig {
        fetch: RemoteImages::Https,
        hosts: Vec::new(),
        timeout: Duration::from_secs(20),
    }
}

fn at(url: &str) -> Value {
    message(&[words("look"), picture(url)])
}

#[tokio::test]
async fn an_image_by_https_is_seen_and_known_by_its_content() {
    let outside = Outside::start();
    let server = outside.server(https());
    let by_address = usage(&server, at("https://pictures.example/cat.png")).await;
    assert_eq!(outside.dialled(), [PUBLIC.parse::<IpAddr>().unwrap()]);
    // The same file in the request itself is the same image.
    let inline = at(&crate::images::url(&png(200, 8)));
    let inline = usage(&server, inline).await;
    let cached = &inline["prompt_tokens_details"]["cached_tokens"];
    assert_eq!(by_address["prompt_tokens"], inline["prompt_tokens"]);
    assert_eq!(*cached, by_address["prompt_tokens"].as_u64().unwrap() - 1);
    // Redirects lead there as well, with relative addresses.
    let again = usage(&server, at("https://pictures.example/1")).await;
    assert_eq!(again["prompt_tokens_details"]["cached_tokens"], *cached);
}

#[tokio::test]
async fn no_connection_is_made_to_an_address_that_is_not_public() {
    let outside = Outside::start();
    let server = outside.server(https());
    let inside = [
        "https://inside.example/",
        "https://both.example/cat.png",
        "https://cloud.example/latest/meta-data/",
        "https://mapped.example/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        // As what does not exist: nobody learns which names there are inside.
        "https://nowhere.example/",
    ];
    for url in inside {
        let told = refusal(&server, at(url)).await;
        let same = "messages[0].content[1].image_url.url: no public server can be reached there";
        assert_eq!(told, same, "{url}");
    }
    assert_eq!(outside.dialled(), Vec::<IpAddr>::new());
    let told = refusal(&server, at("https://pictures.example/inward")).await;
    insta::assert_snapshot!(told, @"messages[0].content[1].image_url.url: it is redirected, but no public server can be reached there");
    // The second look at this name shows another address: it was looked at again.
    usage(&server, at("https://pictures.example/rebind")).await;
    let told = refusal(&server, at("https://rebind.example/cat.png")).await;
    assert!(
        told.ends_with("no public server can be reached there"),
        "{told}"
    );
    let public: IpAddr = PUBLIC.parse().unwrap();
    assert_eq!(outside.dialled(), [public; 3]);
}

#[tokio::test]
async fn what_else_cannot_be_fetched_is_said() {
    let outside = Outside::start();
    let server = outside.server(https());
    let no = |url: &'static str| refusal(&server, at(url));
    insta::assert_snapshot!(no("https://pictures.example/dog.png").await, @"messages[0].content[1].image_url.url: its server answers with status 404");
    insta::assert_snapshot!(no("https://pictures.example/page").await, @"messages[0].content[1].image_url.url: this is no image that can be read; expected JPEG, PNG, WebP or GIF");
    insta::assert_snapshot!(no("https://pictures.example/endless").await, @"messages[0].content[1].image_url.url: the image is larger than 16384 bytes");
    insta::assert_snapshot!(no("https://pictures.example/announced").await, @"messages[0].content[1].image_url.url: the image is larger than 16384 bytes");
    insta::assert_snapshot!(no("https://pictures.example/loop").await, @"messages[0].content[1].image_url.url: it is redirected more than 3 times");
    insta::assert_snapshot!(no("https://pictures.example/plain").await, @"messages[0].content[1].image_url.url: it is redirected, but images are fetched by https: only");
    // A certificate for another name.
    insta::assert_snapshot!(no("https://elsewhere.example/cat.png").await, @"messages[0].content[1].image_url.url: no public server can be reached there");
    outside.dialled();
    insta::assert_snapshot!(no("http://pictures.example/cat.png").await, @"messages[0].content[1].image_url.url: images are fetched by https: only");
    insta::assert_snapshot!(no("https://pictures.example:8443/cat.png").await, @"messages[0].content[1].image_url.url: images are fetched from a scheme's own port only");
    insta::assert_snapshot!(no("https://me:secret@pictures.example/cat.png").await, @"messages[0].content[1].image_url.url: a name and password in an address are not sent");
    insta::assert_snapshot!(no("https://").await, @"messages[0].content[1].image_url.url: it is no address such as https://example.org/cat.png");
    assert_eq!(outside.dialled(), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn a_list_of_hosts_holds_for_redirects_too() {
    let outside = Outside::start();
    let server = outside.server(ImagesConfig {
        hosts: vec!["pictures.example".into(), "*.cats.example".into()],
        ..https()
    });
    usage(&server, at("https://PICTURES.example/cat.png")).await;
    outside.dialled();
    insta::assert_snapshot!(refusal(&server, at("https://elsewhere.example/cat.png")).await, @"messages[0].content[1].image_url.url: images are fetched from these hosts only: pictures.example, *.cats.example");
    assert_eq!(outside.dialled(), Vec::<IpAddr>::new());
    insta::assert_snapshot!(refusal(&server, at("https://pictures.example/elsewhere")).await, @"messages[0].content[1].image_url.url: it is redirected, but images are fetched from these hosts only: pictures.example, *.cats.example");
    assert_eq!(outside.dialled().len(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let outside = Outside::start();
    let server = outside.server(ImagesConfig {
        timeout: Duration::from_millis(300),
        ..https()
    });
    insta::assert_snapshot!(refusal(&server, at("https://pictures.example/silent")).await, @"messages[0].content[1].image_url.url: it could not be fetched within 300ms");
}

#[tokio::test]
async fn the_other_dialects_have_addresses_fetched_too() {
    let outside = Outside::start();
    let server = outside.server(https());
    let (good, bad) = (
        "https://pictures.example/cat.png",
        "https://inside.example/",
    );
    let anthropic = |url: &str| {
        let image = json!({"type": "image", "source": {"type": "url", "url": url}});
        json!({"model": "org/fake", "max_tokens": 4, "messages": [{"role": "user", "content": [image]}]})
    };
    let responses = |url: &str| {
        let image = json!({"type": "input_image", "image_url": url});
        json!({"input": [{"role": "user", "content": [image]}]})
    };
    let answer = server.post("/v1/messages", anthropic(good)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = server.post("/v1/responses", responses(good)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let message = |body: Value| body["error"]["message"].as_str().unwrap().to_owned();
    let answer = server.post("/v1/messages", anthropic(bad)).await;
    insta::assert_snapshot!(message(value(answer).await), @"messages[0].content[0].source: no public server can be reached there");
    let answer = server.post("/v1/responses", responses(bad)).await;
    insta::assert_snapshot!(message(value(answer).await), @"input[0].content[0].image_url: no public server can be reached there");
}
