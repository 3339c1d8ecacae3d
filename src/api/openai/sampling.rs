//! Sampling parameters of a request, under OpenAI's and llama-server's names, with llama.cpp's defaults.

use serde_json::Value;

use crate::{
    api::{
        error::ApiError,
        fields::{Fields, as_f32, as_i64},
        random,
    },
    engine::{Sampling, Shape, Token, model::Vocab},
};

/// llama.cpp reads this seed as "choose one", which would hide the choice from us.
pub(in crate::api) const UNSEEDED: u32 = u32::MAX;

pub(super) fn read(
    fields: Fields<'_>,
    vocab: &dyn Vocab,
    shape: Shape,
) -> Result<Sampling, ApiError> {
    let mut s = Sampling::default();
    let number = |slot: &mut f32, name: &str, range| {
        fields
            .number(name, range)
            .map(|given| *slot = given.unwrap_or(*slot))
    };
    number(&mut s.temperature, "temperature", 0.0..=5.0)?;
    number(&mut s.dynatemp_range, "dynatemp_range", 0.0..=5.0)?;
    number(&mut s.dynatemp_exponent, "dynatemp_exponent", 0.0..=100.0)?;
    number(&mut s.top_p, "top_p", 0.0..=1.0)?;
    number(&mut s.min_p, "min_p", 0.0..=1.0)?;
    number(&mut s.typical_p, "typical_p", 0.0..=1.0)?;
    number(&mut s.top_n_sigma, "top_n_sigma", -1.0..=100.0)?;
    number(&mut s.xtc_probability, "xtc_probability", 0.0..=1.0)?;
    number(&mut s.xtc_threshold, "xtc_threshold", 0.0..=1.0)?;
    // The second is the name that vLLM and Hugging Face use.
    number(&mut s.repeat_penalty, "repetition_penalty", 0.01..=10.0)?;
    number(&mut s.repeat_penalty, "repeat_penalty", 0.01..=10.0)?;
    number(&mut s.frequency_penalty, "frequency_penalty", -2.0..=2.0)?;
    number(&mut s.presence_penalty, "presence_penalty", -2.0..=2.0)?;
    number(&mut s.dry_multiplier, "dry_multiplier", 0.0..=100.0)?;
    number(&mut s.dry_base, "dry_base", 1.0..=100.0)?;
    number(&mut s.mirostat_tau, "mirostat_tau", 0.0..=100.0)?;
    number(&mut s.mirostat_eta, "mirostat_eta", 0.0..=1.0)?;

    let most = i64::from(i32::MAX);
    let integer = |slot: &mut i32, name: &str, range| {
        fields
            .integer(name, range)
            .map(|given| *slot = given.unwrap_or(*slot))
    };
    integer(&mut s.top_k, "top_k", -1..=most)?;
    integer(&mut s.repeat_last_n, "repeat_last_n", -1..=most)?;
    integer(&mut s.dry_allowed_length, "dry_allowed_length", 1..=most)?;
    integer(&mut s.dry_penalty_last_n, "dry_penalty_last_n", -1..=most)?;
    // Neither needs more memory than the context has tokens.
    let context = i32::try_from(shape.context).unwrap_or(i32::MAX);
    s.repeat_last_n = match s.repeat_last_n {
        -1 => context,
        tokens => tokens.min(context),
    };
    s.dry_penalty_last_n = s.dry_penalty_last_n.min(context);
    if let Some(version) = fields.integer("mirostat", 0..=2)? {
        s.mirostat = version;
    }
    if let Some(breakers) = fields.array("dry_sequence_breakers")? {
        s.dry_sequence_breakers = sequence_breakers(fields, breakers)?;
    }
    s.logit_bias = logit_bias(fields, vocab)?;
    s.seed = seed(fields)?;
    Ok(s)
}

fn sequence_breakers(fields: Fields<'_>, breakers: &[Value]) -> Result<Vec<String>, ApiError> {
    const MOST: usize = 64;
    let wrong = || {
        let expected = format_args!("an array of at most {MOST} strings that are not empty");
        fields.wrong("dry_sequence_breakers", expected)
    };
    if breakers.len() > MOST {
        return Err(wrong());
    }
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    breakers
        .iter()
        .map(|value| text(value).ok_or_else(wrong))
        .collect()
}

/// Absent or -1: a fresh one. The engine's seeds have 32 bits; wider ones are folded.
fn seed(fields: Fields<'_>) -> Result<u32, ApiError> {
    let wide = match fields.get("seed") {
        None => random(),
        Some(value) => match value
            .as_u64()
            .or_else(|| as_i64(value).map(i64::cast_unsigned))
        {
            None => return Err(fields.wrong("seed", "an integer of 64 bits")),
            Some(given) if given == u64::MAX || given == u64::from(UNSEEDED) => random(),
            Some(given) => given,
        },
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fold keeps all bits in play"
    )]
    let folded = (wide ^ (wide >> 32)) as u32;
    Ok(if folded == UNSEEDED { 0 } else { folded })
}

/// OpenAI: `{"15043": -1.0}`. llama-server also: `[[15043, -1.0], ["text", false]]`, where text means
/// each of its tokens and `false` forbids.
fn logit_bias(fields: Fields<'_>, vocab: &dyn Vocab) -> Result<Vec<(Token, f32)>, ApiError> {
    let mut biases = Vec::new();
    match fields.get("logit_bias") {
        None => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                let id = key.parse().ok().and_then(|id| token(id, vocab));
                let pair = id.zip(bias(value));
                biases.push(pair.ok_or_else(|| wrong_bias(&format!(".{key}"), vocab))?);
            }
        }
        Some(Value::Array(pairs)) => {
            for (index, pair) in pairs.iter().enumerate() {
                let (tokens, bias) = bias_pair(pair, vocab)
                    .ok_or_else(|| wrong_bias(&format!("[{index}]"), vocab))?;
                biases.extend(tokens.into_iter().map(|token| (token, bias)));
            }
        }
        Some(_) => return Err(wrong_bias("", vocab)),
    }
    Ok(biases)
}

fn bias_pair(pair: &Value, vocab: &dyn Vocab) -> Option<(Vec<Token>, f32)> {
    let [key, value] = &pair.as_array()?[..] else {
        return None;
    };
    let tokens = match key {
        Value::String(text) => vocab.tokenize(text, false, false),
        id => vec![token(as_i64(id)?, vocab)?],
    };
    Some((tokens, bias(value)?))
}

fn bias(value: &Value) -> Option<f32> {
    match value {
        Value::Bool(false) => Some(f32::NEG_INFINITY),
        _ => as_f32(value).filter(|bias| (-100.0..=100.0).contains(bias)),
    }
}

/// `entry`: which part of `logit_bias` is wrong.
fn wrong_bias(entry: &str, vocab: &dyn Vocab) -> ApiError {
    let param = format!("logit_bias{entry}");
    let message = format!(
        "{param}: expected token ids below {} with biases from -100 to 100 (or false), as an object or an array of pairs",
        vocab.size()
    );
    ApiError::invalid(param, message)
}

/// The id, if the vocabulary has it.
pub(super) fn token(id: i64, vocab: &dyn Vocab) -> Option<Token> {
    let size = i64::from(vocab.size());
    (0..size).contains(&id).then(|| Token::try_from(id).ok())?
}
