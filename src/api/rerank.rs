//! `POST /v1/rerank`: a query and documents in, the documents by relevance out; in the words of Jina and Cohere, or,
//! where the documents are called `texts`, of Text Embeddings Inference.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    App, Service, body,
    encode::{self, MOST_TEXTS},
    error::ApiError,
    fields::Fields,
    openai::{embeddings::Spent, models::known, wire::warn},
    record::Record,
    work::Scale,
};
use crate::engine::{
    Token,
    embed::{Output, Pairing},
    model::Vocab,
};

/// Known elsewhere; each would change the scores.
const UNSUPPORTED: &[&str] = &[
    "max_chunks_per_doc",
    "max_tokens_per_doc",
    "rank_fields",
    "truncate_prompt_tokens",
];

#[derive(Serialize)]
struct Ranking {
    object: &'static str,
    model: String,
    results: Vec<Relevance>,
    usage: Spent,
}

#[derive(Serialize)]
struct Relevance {
    index: usize,
    #[serde(rename = "relevance_score")]
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Serialize)]
struct Document {
    text: String,
}

/// An element of Text Embeddings Inference's answer.
#[derive(Serialize)]
struct Rank {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let (engine, _, scale) = service.work.ranker()?;
    let body = body::receive(body, &app.limits()).await?;
    let Wanted {
        texts,
        mut documents,
        dialect,
        top,
        returned,
        raw,
        warnings,
    } = {
        let service = Arc::clone(&service);
        body::prepare(body, move |body| Wanted::parse(body, &service)).await?
    };
    let field = dialect.field();
    let name = move |at| format!("{field}[{at}]");
    let encoded = encode::run(&service, engine, &app.limits(), texts, record, name).await?;
    let scores = encoded.outputs.iter().map(|output| match (scale, raw) {
        (Scale::Logit, Scores::Probabilities) => sigmoid(first(output)),
        (Scale::Logit, Scores::Raw) | (Scale::Probability, _) => first(output),
    });
    let mut ranked: Vec<(usize, f32)> = scores.enumerate().collect();
    // Equal ones stay in the order of the request.
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    ranked.truncate(top);
    let mut text = |at: usize| match returned {
        Returned::Scores => None,
        Returned::Texts => documents.get_mut(at).map(std::mem::take),
    };
    let mut response = match dialect {
        Dialect::Jina => {
            let results = ranked.into_iter().map(|(index, score)| Relevance {
                index,
                score,
                document: text(index).map(|text| Document { text }),
            });
            Json(Ranking {
                object: "list",
                model: service.identity.model.clone(),
                results: results.collect(),
                usage: Spent::reading(encoded.tokens),
            })
            .into_response()
        }
        Dialect::Tei => {
            let ranks = ranked.into_iter().map(|(index, score)| Rank {
                index,
                score,
                text: text(index),
            });
            Json(ranks.collect::<Vec<_>>()).into_response()
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// The classifier's first label.
fn first(output: &Output) -> f32 {
    match output {
        Output::Pooled(scores) => scores.first().copied().unwrap_or(0.0),
        Output::Tokens(_) => 0.0, // rerankers pool
    }
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Jina,
    Tei,
}

impl Dialect {
    /// What it calls the documents.
    fn field(self) -> &'static str {
        match self {
            Self::Jina => "documents",
            Self::Tei => "texts",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Returned {
    Scores,
    /// And the documents.
    Texts,
}

#[derive(Debug, Clone, Copy)]
enum Scores {
    Probabilities,
    /// As the model computed them.
    Raw,
}

/// A request, understood.
struct Wanted {
    /// The query with each of the documents.
    texts: Vec<Vec<Token>>,
    documents: Vec<String>,
    dialect: Dialect,
    /// How many of the best are wanted.
    top: usize,
    returned: Returned,
    raw: Scores,
    /// What was cut.
    warnings: Vec<String>,
}

impl Wanted {
    fn parse(body: &[u8], service: &Service) -> Result<Self, ApiError> {
        let object = body::parse(body)?;
        let fields = Fields::new(&object);
        if let Some(model) = fields.text("model")? {
            known(model, &service.identity)?;
        }
        encode::refuse(&object, UNSUPPORTED)?;
        let query = fields.text("query")?.filter(|query| !query.is_empty());
        let query = query.ok_or_else(|| fields.wrong("query", "a string that is not empty"))?;
        let tei = fields.get("documents").is_none() && fields.get("texts").is_some();
        let dialect = if tei { Dialect::Tei } else { Dialect::Jina };
        let documents = documents(fields, dialect.field())?;
        let returned = match dialect {
            Dialect::Jina => fields.flag("return_documents")?,
            Dialect::Tei => fields.flag("return_text")?,
        };
        let most = i64::try_from(MOST_TEXTS).unwrap_or(i64::MAX);
        let (engine, pairing, _) = service.work.ranker()?;
        let vocab = &*service.vocab;
        let mut texts = pairing.texts(vocab, query, &documents);
        let mut warnings = Vec::new();
        if cuts(fields)? {
            let longest = engine.facts().longest as usize;
            for (at, text) in texts.iter_mut().enumerate() {
                let whole = text.len();
                if whole > longest
                    && let Some(cut) = shorten(pairing, vocab, (query, &documents[at]), longest)
                {
                    let field = dialect.field();
                    let told = format!("{field}[{at}]: cut from {whole} to {} tokens", cut.len());
                    warnings.push(told);
                    *text = cut;
                }
            }
        }
        Ok(Self {
            texts,
            dialect,
            top: fields
                .integer("top_n", 1..=most)?
                .unwrap_or(documents.len()),
            documents,
            returned: match returned {
                Some(true) => Returned::Texts,
                Some(false) | None => Returned::Scores,
            },
            raw: match fields.flag("raw_scores")? {
                Some(true) => Scores::Raw,
                Some(false) | None => Scores::Probabilities,
            },
            warnings,
        })
    }
}

/// Whether documents that are too long are to lose their ends, in the words of Text Embeddings Inference.
fn cuts(fields: Fields<'_>) -> Result<bool, ApiError> {
    match fields.text("truncation_direction")? {
        None | Some("Right" | "right") => Ok(fields.flag("truncate")?.unwrap_or(false)),
        Some(_) => Err(fields.wrong("truncation_direction", "\"Right\"")),
    }
}

/// The query with as much of the document as fits; `None`: the query alone does not.
fn shorten(
    pairing: &Pairing,
    vocab: &dyn Vocab,
    (query, document): (&str, &str),
    longest: usize,
) -> Option<Vec<Token>> {
    let tokens = vocab.tokenize(document, false, false);
    let mut kept = tokens.len();
    loop {
        let mut bytes = Vec::new();
        for &token in &tokens[..kept] {
            vocab.piece(token, true, &mut bytes);
        }
        // The last character may have lost a part.
        let whole = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let text = pairing.texts(vocab, query, &[whole.to_owned()]).pop()?;
        let excess = text.len().saturating_sub(longest);
        if excess == 0 {
            return Some(text);
        }
        // What is left may be other tokens than before, but never more than a few.
        kept = kept.checked_sub(excess)?;
    }
}

/// Strings, or objects with a `text`.
fn documents(fields: Fields<'_>, field: &'static str) -> Result<Vec<String>, ApiError> {
    let expected = format_args!("an array of 1 to {MOST_TEXTS} documents");
    let values = fields
        .array(field)?
        .filter(|values| (1..=MOST_TEXTS).contains(&values.len()));
    let values = values.ok_or_else(|| fields.wrong(field, expected))?;
    let one = |(at, value): (usize, &Value)| {
        let text = value.as_str().or_else(|| value.get("text")?.as_str());
        match text {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => {
                let param = format!("{field}[{at}]");
                let message = format!(
                    "{param}: expected a string, or an object whose text is one, not empty"
                );
                Err(ApiError::invalid(param, message))
            }
        }
    };
    values.iter().enumerate().map(one).collect()
}
