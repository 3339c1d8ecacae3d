//! One request and what became of it, seen from the client's side.

use std::{
    io::BufReader,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Error,
    stream::{self, Events, Usage},
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
    manner: Manner,
    agent: ureq::Agent,
}

/// What one client asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) prompt: String,
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

/// What became of a request.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Answered(Sample),
    /// The client hung up on purpose.
    HungUp,
    /// A status other than 200.
    Refused(u16),
    /// No answer, a cut answer, or an error inside the stream.
    Broken(String),
}

/// The times of one whole answer.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// From sending to the first chunk with text.
    pub(super) first: Duration,
    /// From the first chunk with text to the end of generation.
    pub(super) generation: Duration,
    /// Between neighbouring chunks with text.
    pub(super) gaps: Vec<Duration>,
    pub(super) usage: Usage,
}

impl Target {
    /// Asks the server for its models unless one is named.
    pub(super) fn find(
        url: &str,
        label: &str,
        model: Option<&str>,
        manner: Manner,
    ) -> Result<Self, Error> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut target = Self {
            label: label.to_owned(),
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
            return Err(format!("GET /v1/models answers {}", answer.status()));
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
        let answer = request
            .send_json(self.body(ask))
            .map_err(|e| e.to_string())?;
        if answer.status() != 200 {
            return Ok(Outcome::Refused(answer.status().as_u16()));
        }
        let events = Events::new(BufReader::new(answer.into_body().into_reader()));
        read(events, ask.hang_up, begun)
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
            Endpoint::Completions => body["prompt"] = json!(ask.prompt),
            Endpoint::Chat => {
                body["messages"] = json!([{"role": "user", "content": ask.prompt}]);
            }
        }
        for (name, value) in &self.manner.body {
            body[name] = value.clone();
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

fn read<R: std::io::BufRead>(
    events: Events<R>,
    hang_up: HangUp,
    begun: Instant,
) -> Result<Outcome, String> {
    let mut arrivals = Vec::new();
    let mut ended = None;
    let mut usage = None;
    for event in events {
        let chunk = stream::chunk(&event.map_err(|e| e.to_string())?)?;
        let now = Instant::now();
        if chunk.text {
            arrivals.push(now);
            if hang_up == HangUp::Chunks(u32::try_from(arrivals.len()).unwrap_or(u32::MAX)) {
                return Ok(Outcome::HungUp);
            }
        }
        if chunk.finished {
            ended = Some(now);
        }
        usage = chunk.usage.or(usage);
    }
    let ended = ended.ok_or("the stream has no finish_reason")?;
    // An answer may have no text at all (its tokens hold none): then all of it was the first token.
    let first = arrivals.first().copied().unwrap_or(ended);
    Ok(Outcome::Answered(Sample {
        first: first - begun,
        generation: ended - first,
        gaps: arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        usage: usage.ok_or("the stream has no usage, though include_usage was asked for")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = concat!(
        "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn outcome(text: &str, hang_up: HangUp) -> Result<Outcome, String> {
        read(Events::new(text.as_bytes()), hang_up, Instant::now())
    }

    #[test]
    fn a_whole_answer_has_one_gap_less_than_chunks() {
        let Ok(Outcome::Answered(sample)) = outcome(ANSWER, HangUp::Never) else {
            panic!("not answered");
        };
        assert_eq!(sample.gaps.len(), 1);
        assert_eq!(sample.usage.completion_tokens, 2);
    }

    #[test]
    fn the_client_hangs_up_after_the_chunk_it_said() {
        let outcome = outcome(ANSWER, HangUp::Chunks(2));
        assert!(matches!(outcome, Ok(Outcome::HungUp)));
    }

    #[test]
    fn an_answer_without_usage_or_end_is_broken() {
        let without_usage = ANSWER.replace("\"usage\"", "\"other\"");
        assert!(outcome(&without_usage, HangUp::Never).is_err());
        let without_end = ANSWER.replace("\"length\"", "null");
        assert!(outcome(&without_end, HangUp::Never).is_err());
    }
}
