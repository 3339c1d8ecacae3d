//! `POST /v1/audio/transcriptions`: a sound is written down, by a turn of a chat that asks for it.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{
    answer::{Events, Head, Voice, Whole},
    form::{self, FILE, Form},
};
use crate::{
    api::{
        App,
        auth::Tenant,
        error::ApiError,
        images::{Images, refused},
        openai::{params::Delivery, wire::warn},
        record::Record,
        reply::Run,
        turn::{self, Turn},
    },
    chat::Instruction,
};

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let instruction = service.work.listener()?.transcription().clone();
    let form = form::receive(&headers, body, &app.limits()).await?;
    let mut images = Images::new();
    let Asked { body, voice } = Asked::read(form, instruction, &mut images)?;
    let turn = turn::make(&app, &service, tenant, body, images).await?;
    let Turn {
        jobs,
        readers,
        delivery,
        warnings,
    } = turn;
    let head = Head::new(&jobs);
    let mut response = match delivery {
        Delivery::Whole => {
            let answer = Whole::new(head, voice, readers);
            let run = Run::submit(service, jobs, 1, FILE, answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(_) => {
            let answer = Events::new(head, readers);
            let run = Run::submit(service, jobs, 1, FILE, answer, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    if voice == Voice::Text && matches!(delivery, Delivery::Whole) {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    warn(&mut response, warnings);
    Ok(response)
}

/// A request, understood.
struct Asked {
    /// The request for the chat that it comes to.
    body: Map<String, Value>,
    voice: Voice,
}

/// What is handed on to the chat: numbers and truth values, of which a form knows nothing.
const HANDED_ON: [&str; 6] = [
    "max_completion_tokens",
    "max_tokens",
    "seed",
    "stream",
    "temperature",
    "top_p",
];

/// What only a model that tells times or speakers could do.
const REFUSED: [(&str, &str); 3] = [
    ("timestamp_granularities", "this model tells no times"),
    ("known_speaker_names", "this model tells no speakers apart"),
    (
        "known_speaker_references",
        "this model tells no speakers apart",
    ),
];

impl Asked {
    fn read(form: Form, instruction: Instruction, images: &mut Images) -> Result<Self, ApiError> {
        let file = form
            .file
            .ok_or_else(|| refused(FILE, "expected a file, but it is missing"))?;
        let mut body = Map::new();
        let (mut voice, mut prompt, mut language) = (Voice::Json, None, None);
        for (name, value) in form.texts {
            let (base, value) = (name.trim_end_matches("[]"), value.trim());
            if value.is_empty() {
                continue; // as clients write what is not given
            }
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == base) {
                return Err(refused(base, &format!("{why}; leave it out")));
            }
            match base {
                "prompt" => prompt = Some(value.to_owned()),
                "language" => language = Some(self::language(value)?),
                "response_format" => voice = self::voice(value)?,
                "include" if value == "logprobs" => {
                    body.insert("logprobs".to_owned(), true.into());
                }
                "include" => return Err(refused(base, r#"expected "logprobs""#)),
                "chunking_strategy" if value != "auto" => {
                    let why = r#"expected "auto": the projector divides sounds itself"#;
                    return Err(refused(base, why));
                }
                "model" => {
                    body.insert(name, value.into());
                }
                _ if HANDED_ON.contains(&base) => {
                    body.insert(name, typed(value));
                }
                _ => {}
            }
        }
        if voice == Voice::Text && body.get("stream") == Some(&true.into()) {
            return Err(refused(
                "response_format",
                r#"a stream has events; expected "json" beside it"#,
            ));
        }
        // As OpenAI has it; llama-server samples as in a chat.
        body.entry("temperature").or_insert_with(|| 0.into());
        body.insert("enable_thinking".to_owned(), false.into());
        let mark = images.sound(FILE, file);
        body.insert(
            "messages".to_owned(),
            messages(instruction, prompt, language, &mark),
        );
        Ok(Self { body, voice })
    }
}

/// What llama-server says to the model, so that it answers the same.
fn messages(
    instruction: Instruction,
    prompt: Option<String>,
    language: Option<String>,
    mark: &str,
) -> Value {
    let text = prompt.unwrap_or(instruction.user);
    let language = language.map_or_else(String::new, |code| format!(" (language: {code})"));
    let text = text + &language + mark;
    let user = json!({"role": "user", "content": text});
    if instruction.system.is_empty() {
        return json!([user]);
    }
    json!([{"role": "system", "content": instruction.system}, user])
}

/// ISO 639-1, or longer as in BCP 47.
fn language(value: &str) -> Result<String, ApiError> {
    const LONGEST: usize = 35;
    let plain = value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && (2..=LONGEST).contains(&value.len()) {
        Ok(value.to_owned())
    } else {
        Err(refused(
            "language",
            r#"expected a language's code such as "en" or "pt-BR""#,
        ))
    }
}

fn voice(value: &str) -> Result<Voice, ApiError> {
    match value {
        "json" => Ok(Voice::Json),
        "text" => Ok(Voice::Text),
        "verbose_json" | "srt" | "vtt" | "diarized_json" => Err(refused(
            "response_format",
            &format!(
                r#"{value:?} needs times or speakers, which this model does not tell; expected "json" or "text""#
            ),
        )),
        _ => Err(refused("response_format", r#"expected "json" or "text""#)),
    }
}

/// A number or a truth value, where it is one; what is neither is refused by its name further on.
fn typed(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(typed @ (Value::Bool(_) | Value::Number(_))) => typed,
        _ => value.into(),
    }
}
