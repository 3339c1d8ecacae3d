//! `POST /tokenize` and `POST /detokenize`: text to tokens and back, without the engine.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use serde::Serialize;
use serde_json::Value;

use super::prompt::{Mixed, text_of};
use crate::{
    api::{App, body, error::ApiError, fields::Fields},
    engine::{Token, model::Vocab},
};

#[derive(Serialize)]
pub(super) struct Tokens {
    tokens: Ids,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Ids {
    Plain(Vec<Token>),
    WithPieces(Vec<Piece>),
}

#[derive(Serialize)]
struct Piece {
    id: Token,
    piece: Spelling,
}

/// A token's text; where its bytes are no text, the bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Json<Tokens>, ApiError> {
    let service = app.service()?;
    let body = body::receive(body, &app.limits()).await?;
    let tokens = body::prepare(body, move |body| {
        let object = body::parse(body)?;
        let fields = Fields::new(&object);
        let vocab = &*service.vocab;
        let add_special = fields.flag("add_special")?.unwrap_or(false);
        let parse_special = fields.flag("parse_special")?.unwrap_or(true);
        let with_pieces = fields.flag("with_pieces")?.unwrap_or(false);
        let content = Mixed::read(fields, "content", vocab)?;
        let tokens = content.tokens(vocab, add_special, parse_special);
        Ok(if with_pieces {
            let piece = |id| Piece {
                id,
                piece: spelling(id, vocab),
            };
            Ids::WithPieces(tokens.into_iter().map(piece).collect())
        } else {
            Ids::Plain(tokens)
        })
    });
    Ok(Json(Tokens {
        tokens: tokens.await?,
    }))
}

fn spelling(token: Token, vocab: &dyn Vocab) -> Spelling {
    let mut bytes = Vec::new();
    vocab.piece(token, true, &mut bytes);
    String::from_utf8(bytes)
        .map_or_else(|error| Spelling::Bytes(error.into_bytes()), Spelling::Text)
}

#[derive(Serialize)]
pub(super) struct Content {
    content: String,
}

pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Json<Content>, ApiError> {
    let service = app.service()?;
    let body = body::receive(body, &app.limits()).await?;
    let content = body::prepare(body, move |body| {
        let object = body::parse(body)?;
        let fields = Fields::new(&object);
        let vocab = &*service.vocab;
        let wrong = || {
            let expected = format_args!("an array of token ids below {}", vocab.size());
            fields.wrong("tokens", expected)
        };
        let ids = fields.get("tokens").and_then(Value::as_array);
        let ids = ids.ok_or_else(wrong)?.iter();
        let tokens: Option<Vec<_>> = ids.map(|id| super::prompt::token(id, vocab)).collect();
        Ok(text_of(&tokens.ok_or_else(wrong)?, vocab))
    });
    Ok(Json(Content {
        content: content.await?,
    }))
}
