//! How much a request lets the model think.

use crate::{
    api::{error::ApiError, fields::Fields},
    chat::Rendered,
    engine::{Budget, model::Vocab},
};

/// What a request says of it.
pub(super) struct Wish {
    field: &'static str,
    tokens: u32,
    /// Said before thinking is closed.
    message: String,
}

/// llama-server's names for one thing; the first that is given counts.
const NAMES: [&str; 2] = ["reasoning_budget_tokens", "thinking_budget_tokens"];

/// The budget that a request asks for; -1 is none.
pub(super) fn read(fields: Fields<'_>) -> Result<Option<Wish>, ApiError> {
    let message = fields.text("reasoning_budget_message")?.unwrap_or_default();
    let mut wish = None;
    for field in NAMES {
        let tokens = fields.integer::<i64>(field, -1..=i64::from(u32::MAX))?;
        if let Some(tokens) = tokens
            && wish.is_none()
        {
            wish = Some((field, tokens));
        }
    }
    Ok(wish.and_then(|(field, tokens)| {
        Some(Wish {
            field,
            tokens: u32::try_from(tokens).ok()?,
            message: message.to_owned(),
        })
    }))
}

impl Wish {
    /// The budget, where the template has marks around thinking.
    pub(super) fn budget(
        &self,
        rendered: &Rendered,
        vocab: &dyn Vocab,
        warnings: &mut Vec<String>,
    ) -> Option<Budget> {
        let thinking = rendered.thinking.as_ref();
        let thinking = thinking.filter(|thinking| thinking.begun || !thinking.start.is_empty());
        let Some((thinking, end)) = thinking.and_then(|it| Some((it, it.ends.first()?))) else {
            let field = self.field;
            warnings.push(format!(
                "{field}: this model's chat template has no marks around thinking; there is no budget"
            ));
            return None;
        };
        Some(Budget {
            tokens: self.tokens,
            begin: (!thinking.begun).then(|| thinking.start.clone()),
            ends: thinking.ends.clone(),
            close: vocab.tokenize(&format!("{}{end}", self.message), false, true),
        })
    }
}
