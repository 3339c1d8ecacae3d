//! A server without a socket, and answers as text that does not change from run to run.

use std::{
    cell::RefCell,
    fmt::Write,
    io,
    sync::{Arc, Once, mpsc},
    time::Duration,
};

use axum::{
    Router,
    body::{self, Body},
    http::Request,
    response::Response,
};
use llm_server::{
    api::{Early, Identity, Internet, Key, Loras, Scale, Service, Settings, Stage, Surface, Work},
    chat::Chat,
    config::{Any, ImagesConfig, Limits, Origins, RemoteImages},
    engine::{
        self, Engine, Token,
        constrain::Constraints,
        embed::{self, Encoder, Pairing, fake::FakeEncoder},
        fake::{Fake, FakeVocab, Fault},
        model::{About, Fim, Vocab},
        senses::Senses,
        state::Places,
        task::Pooling,
    },
    gpu::Gpus,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;

/// The model answers with the last line, so with the last message.
const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}{{ '\\n' }}{% endfor %}";
pub(crate) const CONTEXT: u32 = 256;
const LOADED: u64 = 1_700_000_000;

/// What differs between the servers of the tests.
pub(crate) struct Setup {
    pub(crate) fake: Fake,
    pub(crate) queue: u32,
    pub(crate) keys: Vec<Key>,
    pub(crate) origins: Origins,
    pub(crate) aliases: Vec<String>,
    pub(crate) loras: Loras,
    pub(crate) limits: Limits,
    pub(crate) plan: Value,
    /// Of chats, in Jinja.
    pub(crate) template: &'static str,
    /// What marks a gap in the vocabulary.
    pub(crate) fim: Fim,
    pub(crate) about: About,
    pub(crate) senses: Option<Senses>,
    /// Where states may lie as files.
    pub(crate) places: Places,
    pub(crate) images: ImagesConfig,
    pub(crate) internet: Internet,
}

impl Default for Setup {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self {
            fake: Fake::new(2, CONTEXT),
            queue: 4,
            keys: Vec::new(),
            origins: Origins::Every(Any::Any),
            aliases: Vec::new(),
            loras: Loras::default(),
            plan: Value::Null,
            template: TEMPLATE,
            fim: Fim::default(),
            about: About::default(),
            senses: None,
            places: Places::default(),
            images: ImagesConfig {
                fetch: RemoteImages::Never,
                hosts: Vec::new(),
                timeout: minute,
            },
            internet: Internet::real(),
            limits: Limits {
                queue: 4,
                max_tokens: None,
                body_bytes: 64 << 10,
                responses_bytes: 1 << 20,
                images: 3,
                image_bytes: 16 << 10,
                image_pixels: 64 << 10,
                audio: 2,
                audio_bytes: 64 << 10,
                audio_length: Duration::from_secs(2),
                queue_wait: minute,
                request: minute,
                receive: minute,
                send: minute,
                keep_alive: minute,
                drain: minute,
            },
        }
    }
}

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) engine: Engine,
}

impl Setup {
    pub(crate) fn start(self) -> Server {
        let Self {
            fake,
            queue,
            keys,
            origins,
            aliases,
            loras,
            limits,
            plan,
            template,
            fim,
            about,
            senses,
            places,
            images,
            internet,
        } = self;
        let built = engine::start_in(
            places,
            engine::Tuning {
                queue,
                ..engine::Tuning::default()
            },
            move || Ok::<_, std::convert::Infallible>(fake),
        );
        let (engine, _thread) = built.unwrap();
        let work = Work::Generate {
            engine: engine.clone(),
            chat: Chat::from_template(template, "", "").unwrap(),
            senses,
        };
        let open = (keys, origins, images, internet);
        let (router, stage) = routed(work, (fim, about), (aliases, loras), plan, limits, open);
        Server {
            router,
            stage,
            engine,
        }
    }

    /// A server whose model reads texts; `fake` is not used.
    pub(crate) fn read(self, encoder: FakeEncoder) -> Reader {
        let Self {
            queue,
            keys,
            origins,
            aliases,
            loras,
            limits,
            plan,
            fim,
            about,
            images,
            internet,
            ..
        } = self;
        let pooling = encoder.facts().pooling;
        let built = embed::start(queue, move || Ok::<_, std::convert::Infallible>(encoder));
        let (engine, _thread) = built.unwrap();
        let watch = engine.watch();
        let work = match pooling {
            Pooling::Rank => Work::Rank {
                engine,
                pairing: Pairing::Tokens {
                    begin: vec![1],
                    between: vec![2],
                    end: vec![2],
                },
                scale: Scale::Logit,
            },
            _ => Work::Embed { engine },
        };
        let open = (keys, origins, images, internet);
        let (router, stage) = routed(work, (fim, about), (aliases, loras), plan, limits, open);
        Reader {
            router,
            stage,
            watch,
        }
    }
}

fn routed(
    work: Work,
    (fim, about): (Fim, About),
    (aliases, loras): (Vec<String>, Loras),
    plan: Value,
    limits: Limits,
    (keys, origins, images, internet): (Vec<Key>, Origins, ImagesConfig, Internet),
) -> (Router, watch::Sender<Stage>) {
    let service = Service {
        work,
        vocab: Arc::new(Trap(fim)),
        constraints: Constraints::new(Arc::new(Trap(fim))),
        identity: Identity {
            model: "org/fake".to_owned(),
            aliases: Arc::new(Arc::new(aliases.clone()).into()),
            loras,
            created: LOADED,
            fingerprint: "fp_test".to_owned(),
            version: json!({"version": "0.0.0"}),
        },
        about,
        plan,
        gpus: Gpus::default(),
    };
    let (stage, watched) = watch::channel(Stage::Ready(Arc::new(service)));
    let settings = Settings {
        limits,
        keys,
        share: llm_server::config::Share::Key,
        aliases,
        origins,
        images,
        defaults: serde_json::Map::new(),
        normalize: llm_server::config::Normalize::On,
    };
    (
        Surface::new(
            watched,
            "org/fake",
            settings,
            None,
            Early::TurnedAway,
            internet,
        )
        .router(),
        stage,
    )
}

/// A server whose model embeds or ranks.
pub(crate) struct Reader {
    router: Router,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) watch: engine::Watch,
}

impl Reader {
    pub(crate) fn ready(pooling: Pooling) -> Self {
        Setup::default().read(FakeEncoder::new(pooling))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.send(post(path, body.to_string())).await
    }

    pub(crate) async fn show_post(&self, path: &str, body: Value) -> String {
        show(self.post(path, body).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }
}

/// The fake model's vocabulary, which panics on one text: a bug that tests can call up.
struct Trap(Fim);

pub(crate) const PANIC: &str = "panic!";

impl Vocab for Trap {
    fn size(&self) -> u32 {
        FakeVocab.size()
    }
    fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<Token> {
        assert!(!text.contains(PANIC), "a test wanted this");
        FakeVocab.tokenize(text, add_special, parse_special)
    }
    fn piece(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        FakeVocab.piece(token, special, out);
    }
    fn is_control(&self, token: Token) -> bool {
        FakeVocab.is_control(token)
    }

    fn is_eog(&self, token: Token) -> bool {
        FakeVocab.is_eog(token)
    }

    fn fim(&self) -> Fim {
        self.0
    }
}

/// A model that computes one batch for every `send`, and freely once the sender is gone.
pub(crate) fn gated(sequences: u32) -> (Fake, mpsc::Sender<()>) {
    let (permits, gate) = mpsc::channel();
    let fault: Fault = Box::new(move |_| {
        let _ = gate.recv();
        None
    });
    (Fake::new(sequences, CONTEXT).with_fault(fault), permits)
}

impl Server {
    pub(crate) fn ready() -> Self {
        Setup::default().start()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.send(post(path, body.to_string())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn show_post(&self, path: &str, body: Value) -> String {
        show(self.post(path, body).await).await
    }

    pub(crate) async fn show_get(&self, path: &str) -> String {
        show(self.get(path).await).await
    }

    /// A chat with one message.
    pub(crate) async fn chat(&self, message: &str, more: Value) -> Response {
        self.post("/v1/chat/completions", chat_body(message, more))
            .await
    }

    /// Returns when no job is queued or running.
    pub(crate) async fn idle(&self) {
        while self.engine.busy() != engine::Busy::default() {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

pub(crate) fn chat_body(message: &str, more: Value) -> Value {
    with(
        json!({"messages": [{"role": "user", "content": message}]}),
        more,
    )
}

pub(crate) async fn text(response: Response) -> String {
    let bytes = body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) async fn value(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

/// What is answered to each of these bodies, all of which are refused: a line each with the status, the field at fault, the
/// code, and the words, as far as the dialect has them.
pub(crate) async fn refusals(
    ask: impl AsyncFn(Value) -> Response,
    bodies: impl IntoIterator<Item = Value>,
) -> String {
    let mut lines = Vec::new();
    for body in bodies {
        let shown = body.to_string();
        let response = ask(body).await;
        let status = response.status().as_u16();
        assert!(status >= 400, "{shown}: {}", text(response).await);
        let answer = value(response).await;
        let error = &answer["error"];
        // OpenAI's and llama-server's, then Anthropic's, and Ollama's, which is but a text.
        let about = if answer["type"] == "error" {
            vec![&error["type"]]
        } else {
            vec![&error["param"], &error["code"]]
        };
        let about = about.into_iter().filter_map(Value::as_str);
        let said = error["message"].as_str().or(error.as_str());
        let said = said.unwrap_or_else(|| panic!("{shown}: {answer}"));
        let words = [status.to_string()];
        let words = words.iter().map(String::as_str).chain(about);
        lines.push(format!("{} | {said}", words.collect::<Vec<_>>().join(" ")));
    }
    lines.join("\n")
}

/// `body` with the fields of `more`.
pub(crate) fn with(mut body: Value, more: Value) -> Value {
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// The `data:` of every event, `[DONE]` left out.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Status, headers that matter, and body, with ids and times made equal.
pub(crate) async fn show(response: Response) -> String {
    const SHOWN: [&str; 11] = [
        "content-type",
        "accept-encoding",
        "cache-control",
        "x-accel-buffering",
        "www-authenticate",
        "allow",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-warning",
        "access-control-allow-origin",
    ];
    assert!(response.headers().contains_key("x-request-id"));
    let mut out = response.status().to_string();
    for name in SHOWN {
        for value in response.headers().get_all(name) {
            let _ = write!(out, "\n{name}: {}", value.to_str().unwrap());
        }
    }
    let body = text(response).await;
    let body: Vec<_> = body.lines().map(steady_line).collect();
    format!("{out}\n\n{}", body.join("\n"))
}

fn steady_line(line: &str) -> String {
    let (prefix, json) = match line.strip_prefix("data: ") {
        Some(json) => ("data: ", json),
        None => ("", line),
    };
    match serde_json::from_str::<Value>(json) {
        Ok(mut value) => {
            steady(&mut value);
            format!("{prefix}{value}")
        }
        Err(_) => line.to_owned(),
    }
}

fn steady(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(steady),
        Value::Object(object) => {
            for (name, value) in object {
                match (name.as_str(), &*value) {
                    ("id", Value::String(id)) => {
                        if let Some((kind, _)) = id.split_once("cmpl-") {
                            *value = format!("{kind}cmpl-ID").into();
                        } else if id.starts_with("msg_") {
                            *value = "msg_ID".into();
                        }
                    }
                    ("request_id", _) => *value = "req_ID".into(),
                    ("created", created) if *created != LOADED => *value = "NOW".into(),
                    ("timings", _) => *value = "TIMES".into(),
                    _ => steady(value),
                }
            }
        }
        _ => {}
    }
}

// One subscriber serves the whole process and writes to the log of whichever thread logs: with one of
// its own for each thread, `tracing` may ask another thread's whether a line is wanted, and remember
// its no.
thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct ThisThread;

impl io::Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what this thread logs from now on.
pub(crate) fn collect_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let format = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(|| ThisThread);
        let subscriber = tracing_subscriber::registry().with(format);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    LOG.with_borrow_mut(Vec::clear);
}

/// The lines of it that tell of requests.
pub(crate) fn request_lines() -> Vec<String> {
    let text = LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned());
    let ours = text.lines().filter(|line| line.contains(" request: "));
    ours.map(str::to_owned).collect()
}

/// A key that may do everything, called as it reads.
pub(crate) fn key(secret: &str) -> Key {
    Key::new(secret.to_owned(), secret, Vec::new(), 1)
}
