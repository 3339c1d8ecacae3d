//! `POST /api/embed` and the older `/api/embeddings`: texts in, vectors of length 1 out.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{keep_alive::KeepAlive, names, options};
use crate::{
    api::{
        App, Service, body,
        encode::{self, MOST_TEXTS},
        error::ApiError,
        fields::Fields,
        openai::wire::warn,
        record::Record,
    },
    engine::{
        Token,
        embed::{Encoded, Facts, Output, unit},
        task::Pooling,
    },
};

pub(super) async fn embed(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    body: Body,
) -> Result<Response, ApiError> {
    let asked = receive(&app, body, "input").await?;
    let name = |at| format!("input[{at}]");
    let encoded = run(&app, &asked, Arc::clone(&record), name).await?;
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let answer = json!({
        "model": asked.model,
        "embeddings": encoded.outputs.into_iter().map(vector).collect::<Vec<_>>(),
        "total_duration": nanos(record.age()),
        "load_duration": nanos(encoded.times.queued),
        "prompt_eval_count": encoded.tokens,
    });
    Ok(asked.told(answer))
}

pub(super) async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    body: Body,
) -> Result<Response, ApiError> {
    let asked = receive(&app, body, "prompt").await?;
    let name = |_| "prompt".to_owned();
    let encoded = run(&app, &asked, record, name).await?;
    let first = encoded.outputs.into_iter().next();
    let answer = json!({"embedding": first.map(vector).unwrap_or_default()});
    Ok(asked.told(answer))
}

fn vector(output: Output) -> Vec<f32> {
    match output {
        Output::Pooled(vector) => unit(vector),
        Output::Tokens(vectors) => vectors.concat(), // refused in `Asked::read`
    }
}

/// A request, understood.
struct Asked {
    service: Arc<Service>,
    model: String,
    texts: Vec<Vec<Token>>,
    warnings: Vec<String>,
}

impl Asked {
    fn told(self, answer: Value) -> Response {
        let mut response = Json(answer).into_response();
        warn(&mut response, self.warnings);
        response
    }
}

/// `field`: where the texts are.
async fn receive(app: &Arc<App>, body: Body, field: &'static str) -> Result<Asked, ApiError> {
    let service = app.service()?;
    let facts = service.work.embedder()?.facts();
    let body = body::receive(body, &app.limits()).await?;
    body::prepare(body, move |body| {
        read(&body::parse(body)?, service, facts, field)
    })
    .await
}

fn read(
    object: &Map<String, Value>,
    service: Arc<Service>,
    facts: Facts,
    field: &str,
) -> Result<Asked, ApiError> {
    let fields = Fields::new(object);
    let model = names::wanted(fields, &service)?;
    KeepAlive::read(fields)?;
    if facts.pooling == Pooling::None {
        let why = "engine.pooling = 'none gives a vector for each token, which only /embedding answers with";
        return Err(ApiError::WrongWork(why.into()));
    }
    // Of an embedding the options have only the context to say.
    let mut warnings = options::translate(fields, facts.longest, &mut Map::new())?;
    let dimensions = fields.integer::<u32>("dimensions", 0..=i64::from(u32::MAX))?;
    if dimensions.is_some_and(|wanted| wanted != 0 && wanted != facts.width) {
        let expected = format_args!("{}, which this model's vectors have", facts.width);
        return Err(fields.wrong("dimensions", expected));
    }
    let cut = fields.flag("truncate")?.unwrap_or(true);
    let mut texts = Vec::new();
    for (at, text) in given(fields, field)?.into_iter().enumerate() {
        let mut tokens = service.vocab.tokenize(text, true, true);
        let longest = facts.longest as usize;
        if cut && tokens.len() > longest {
            let whole = tokens.len();
            shorten(&mut tokens, longest, &service);
            warnings.push(format!(
                "{field}[{at}]: cut from {whole} to {longest} tokens"
            ));
        }
        texts.push(tokens);
    }
    Ok(Asked {
        service,
        model,
        texts,
        warnings,
    })
}

/// `"text"` or `["text", …]`; nothing where nothing is said.
fn given<'a>(fields: Fields<'a>, field: &str) -> Result<Vec<&'a str>, ApiError> {
    let texts = match fields.get(field) {
        None => Some(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text.as_str()]),
        Some(Value::Array(items)) if field == "input" && items.len() <= MOST_TEXTS => {
            items.iter().map(Value::as_str).collect()
        }
        Some(_) => None,
    };
    texts.ok_or_else(|| {
        let expected = match field {
            "input" => format!("a string, or an array of at most {MOST_TEXTS} strings"),
            _ => "a string".to_owned(),
        };
        fields.wrong(field, expected)
    })
}

/// A mark at the end stays there.
fn shorten(tokens: &mut Vec<Token>, to: usize, service: &Service) {
    let last = tokens.last().copied();
    let mark = last.filter(|&token| service.vocab.is_control(token));
    tokens.truncate(to);
    if let (Some(end), Some(mark)) = (tokens.last_mut(), mark) {
        *end = mark;
    }
}

async fn run(
    app: &App,
    asked: &Asked,
    record: Arc<Record>,
    name: impl Fn(usize) -> String,
) -> Result<Encoded, ApiError> {
    if asked.texts.is_empty() {
        return Ok(Encoded {
            outputs: Vec::new(),
            tokens: 0,
            times: crate::engine::Times::default(),
        });
    }
    let engine = asked.service.work.embedder()?;
    encode::run(
        &asked.service,
        engine,
        &app.limits(),
        asked.texts.clone(),
        record,
        name,
    )
    .await
}
