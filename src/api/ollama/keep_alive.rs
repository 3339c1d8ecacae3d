//! `keep_alive`: how long the model is to stay loaded. It always does, so that only the wish is read.

use serde_json::Value;

use crate::api::{error::ApiError, fields::Fields};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// As long as it likes, or for some time.
    Stay,
    /// The caller is done with the model.
    Unload,
}

/// Units of a duration; those that end as another do come first.
const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];

impl KeepAlive {
    pub(super) fn read(fields: Fields<'_>) -> Result<Self, ApiError> {
        let time = match fields.get("keep_alive") {
            None => return Ok(Self::Stay),
            Some(Value::Number(seconds)) => seconds.as_f64(),
            Some(Value::String(text)) => duration(text),
            Some(_) => None,
        };
        match time {
            Some(0.0) => Ok(Self::Unload),
            Some(_) => Ok(Self::Stay),
            None => Err(fields.wrong("keep_alive", "seconds, or a duration such as \"5m\"")),
        }
    }
}

/// The sum of the numbers of `1h30m`, whatever their units: only whether it is nothing counts. A number alone is seconds.
fn duration(text: &str) -> Option<f64> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (count, after) = rest.split_at(digits);
        sum += number(count)?;
        rest = UNITS.iter().find_map(|unit| after.strip_prefix(unit))?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn read(wish: Value) -> Option<KeepAlive> {
        let body = Map::from_iter([("keep_alive".to_owned(), wish)]);
        KeepAlive::read(Fields::new(&body)).ok()
    }

    #[test]
    fn nothing_in_any_spelling_asks_to_unload() {
        for wish in [json!(0), json!(0.0), json!("0"), json!("0s"), json!("0m0s")] {
            assert_eq!(read(wish), Some(KeepAlive::Unload));
        }
        for wish in [
            json!(null),
            json!(-1),
            json!(300),
            json!("-1"),
            json!("5m"),
            json!("1h30m"),
            json!("-1m"),
            json!("1.5h"),
            json!("250ms"),
        ] {
            assert_eq!(read(wish.clone()), Some(KeepAlive::Stay), "{wish}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for wish in [
            json!(""),
            json!("-"),
            json!("soon"),
            json!("5x"),
            json!("m"),
            json!("5m5"),
            json!("inf"),
            json!({}),
            json!(true),
        ] {
            assert_eq!(read(wish.clone()), None, "{wish}");
        }
    }
}
