//! Reads known fields of a request: absent, or of the right type and in range, or an error that names the field.

use std::{fmt::Display, ops::RangeInclusive};

use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of one JSON object. `null` is the same as absent, as in OpenAI's API.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Where the object stands in the request, such as `stream_options.`.
    path: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: &'a Map<String, Value>) -> Self {
        Self { object, path: "" }
    }

    /// The fields of an object inside the request; `path` ends with a dot.
    pub(super) fn within(object: &'a Map<String, Value>, path: &'a str) -> Self {
        Self { object, path }
    }

    pub(super) fn get(self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// The error for a field that is not what `expected` says.
    pub(super) fn wrong(self, name: &str, expected: impl Display) -> ApiError {
        let param = format!("{}{name}", self.path);
        let message = match self.get(name) {
            Some(value) => format!("{param}: expected {expected}, got {}", brief(value)),
            None => format!("{param}: expected {expected}, but it is missing"),
        };
        ApiError::Invalid { param, message }
    }

    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn text(self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(name, "a string", Value::as_str)
    }

    pub(super) fn object(self, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        self.read(name, "an object", Value::as_object)
    }

    pub(super) fn array(self, name: &str) -> Result<Option<&'a Vec<Value>>, ApiError> {
        self.read(name, "an array", Value::as_array)
    }

    pub(super) fn number(
        self,
        name: &str,
        range: RangeInclusive<f32>,
    ) -> Result<Option<f32>, ApiError> {
        let (low, high) = (range.start(), range.end());
        self.read(name, format_args!("a number from {low} to {high}"), |v| {
            as_f32(v).filter(|number| range.contains(number))
        })
    }

    /// A whole number; `40.0` is one too.
    pub(super) fn integer<T>(
        self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<T>, ApiError>
    where
        T: TryFrom<i64>,
    {
        let (low, high) = (range.start(), range.end());
        let expected = format_args!("an integer from {low} to {high}");
        self.read(name, expected, |value| {
            let number = as_i64(value).filter(|number| range.contains(number))?;
            T::try_from(number).ok()
        })
    }

    fn read<T>(
        self,
        name: &str,
        expected: impl Display,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong(name, expected)),
            },
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "sampling is done in f32; what does not fit becomes infinite and fails the range"
)]
pub(super) fn as_f32(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32)
}

pub(super) fn as_i64(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and inside the range that f64 holds exactly"
    )]
    let from_float = || {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
    };
    value.as_i64().or_else(from_float)
}

/// The value as JSON, short enough for an error message.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 40;
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > LONGEST => {
            format!("a string of {} characters", text.chars().count())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => unreachable!("tests pass objects"),
        }
    }

    #[test]
    fn null_is_absent_and_whole_floats_are_integers() {
        let object = object(json!({"a": null, "b": 40.0}));
        let fields = Fields::new(&object);
        assert_eq!(fields.integer::<i32>("a", 0..=9).unwrap(), None);
        assert_eq!(fields.integer::<i32>("b", 0..=99).unwrap(), Some(40));
    }

    #[test]
    fn errors_name_the_field_what_is_accepted_and_what_came() {
        let object = object(json!({"n": 9, "t": "hot", "o": {}, "f": 1.5}));
        let fields = Fields::within(&object, "outer.");
        let say = |error: ApiError| error.to_string();
        insta::assert_snapshot!(say(fields.integer::<u8>("n", 1..=8).unwrap_err()), @"outer.n: expected an integer from 1 to 8, got 9");
        insta::assert_snapshot!(say(fields.number("t", 0.0..=2.0).unwrap_err()), @r#"outer.t: expected a number from 0 to 2, got "hot""#);
        insta::assert_snapshot!(say(fields.flag("o").unwrap_err()), @"outer.o: expected true or false, got an object");
        insta::assert_snapshot!(say(fields.integer::<u8>("f", 0..=8).unwrap_err()), @"outer.f: expected an integer from 0 to 8, got 1.5");
        insta::assert_snapshot!(say(fields.wrong("messages", "an array")), @"outer.messages: expected an array, but it is missing");
    }
}
