//! One request and what became of it, seen from the client's side.

use std::{
    io::{BufReader, Read as _},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Error,
    answer::{self, Outcome},
    process,
    stream::{Events, first_line},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Endpoint {
    /// `/v1/completions`: the prompt as it is.
    Completions,
    /// `/v1/chat/completions`: the prompt as a user's message.
    Chat,
}

/// How every request is made.
pub(super) struct Manner {
    pub(super) endpoint: Endpoint,
    pub(super) key: Option<String>,
    /// Fields added to each body.
    pub(super) body: Map<String, Value>,
    /// After this long a request counts as broken.
    pub(super) timeout: Duration,
}

/// A server that is measured.
pub(super) struct Target {
    pub(super) label: String,
    /// Without `/v1` at its end.
    pub(super) base: String,
    pub(super) model: String,
    /// Its process, when it runs on this machine and may be looked at.
    pub(super) pid: Option<u32>,
    manner: Manner,
    agent: ureq::Agent,
}

/// What one client asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// Question, answer, question, …: it ends with the question.
    pub(super) said: Vec<String>,
    pub(super) max_tokens: u32,
    pub(super) hang_up: HangUp,
}

/// When the client goes away without waiting for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HangUp {
    Never,
    /// After this many chunks with text.
    Chunks(u32),
    /// After this time, wherever the request then is: queued, in its prompt, or answering.
    After(Duration),
}

impl Target {
    /// Asks the server for its models unless one is named.
    pub(super) fn find(
        url: &str,
        label: &str,
        model: Option<&str>,
        pid: Option<u32>,
        manner: Manner,
    ) -> Result<Self, Error> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut target = Self {
            label: label.to_owned(),
            pid: pid.or_else(|| process::listening_at(&base)),
            base,
            model: String::new(),
            manner,
            agent: agent(),
        };
        target.model = match model {
            Some(model) => model.to_owned(),
            None => target.first_model().map_err(|why| Error::Server {
                url: url.to_owned(),
                why,
            })?,
        };
        Ok(target)
    }

    fn first_model(&self) -> Result<String, String> {
        let mut request = self.agent.get(format!("{}/v1/models", self.base));
        if let Some(key) = &self.manner.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut answer = request.call().map_err(|e| e.to_string())?;
        if answer.status() != 200 {
            let said = first_line(&body(&mut answer));
            return Err(format!(
                "GET /v1/models answers {}: {said}",
                answer.status()
            ));
        }
        let models: Value = answer.body_mut().read_json().map_err(|e| e.to_string())?;
        let id = models["data"][0]["id"].as_str();
        id.map(str::to_owned)
            .ok_or_else(|| "GET /v1/models lists no model: give --model".to_owned())
    }

    /// Asks once and reads the answer as it streams.
    pub(super) fn ask(&self, ask: &Ask) -> Outcome {
        let begun = Instant::now();
        self.stream(ask, begun).unwrap_or_else(|error| {
            // Reading fails in more than one way once the client's own time is over.
            let over = matches!(ask.hang_up, HangUp::After(after) if begun.elapsed() >= after);
            if over {
                Outcome::HungUp
            } else {
                Outcome::Broken(error)
            }
        })
    }

    fn stream(&self, ask: &Ask, begun: Instant) -> Result<Outcome, String> {
        let timeout = match ask.hang_up {
            HangUp::After(after) => after,
            HangUp::Never | HangUp::Chunks(_) => self.manner.timeout,
        };
        let mut request = self
            .agent
            .post(self.url())
            .config()
            .timeout_global(Some(timeout))
            .build();
        if let Some(key) = &self.manner.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut answer = request
            .send_json(self.body(ask))
            .map_err(|e| e.to_string())?;
        if answer.status() != 200 {
            let said = first_line(&body(&mut answer));
            return Ok(Outcome::Refused(answer.status().as_u16(), said));
        }
        let kind = answer.headers().get("content-type");
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or("no type");
        if !kind.starts_with("text/event-stream") {
            let kind = kind.to_owned();
            let said = first_line(&body(&mut answer));
            return Err(format!(
                "status 200 with {kind} instead of a stream: {said}"
            ));
        }
        let events = Events::new(BufReader::new(answer.into_body().into_reader()));
        answer::read(events, ask, begun)
    }

    fn url(&self) -> String {
        let path = match self.manner.endpoint {
            Endpoint::Completions => "completions",
            Endpoint::Chat => "chat/completions",
        };
        format!("{}/v1/{path}", self.base)
    }

    fn body(&self, ask: &Ask) -> Value {
        let mut body = json!({
            "model": self.model,
            "max_tokens": ask.max_tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        match self.manner.endpoint {
            Endpoint::Completions => body["prompt"] = json!(ask.said.join("\n\n")),
            Endpoint::Chat => {
                let roles = ["user", "assistant"].into_iter().cycle();
                let message = |(role, said)| json!({"role": role, "content": said});
                body["messages"] = roles.zip(&ask.said).map(message).collect();
            }
        }
        for (name, value) in &self.manner.body {
            body[name] = value.clone();
        }
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        body
    }
}

/// One connection pool for all clients of a target.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        // A benchmark through a proxy would measure the proxy.
        .proxy(None)
        // Compression would hold chunks back.
        .accept_encoding(ureq::config::AutoHeaderValue::None)
        .max_idle_connections_per_host(256)
        .max_idle_connections(256)
        .build()
        .into()
}

/// The beginning of a body that is shown to a person.
fn body(answer: &mut ureq::http::Response<ureq::Body>) -> String {
    let mut bytes = Vec::new();
    let reader = answer.body_mut().as_reader();
    // What could be read of it is better than why the rest could not.
    let _ = reader.take(64 * 1024).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
