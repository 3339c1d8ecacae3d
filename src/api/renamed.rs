//! A field as its caller wrote it, in errors and warnings that know it under the name of OpenAI's chat.

use super::error::ApiError;

/// The error with its field, and the beginning of its message, under the name that `name` gives it.
pub(super) fn error(error: ApiError, name: impl Fn(&str) -> String) -> ApiError {
    let ApiError::Invalid { param, message } = error else {
        return error;
    };
    let named = name(&param);
    let message = match message.strip_prefix(&param) {
        Some(rest) => format!("{named}{rest}"),
        None => message,
    };
    ApiError::invalid(named, message)
}

/// The same for a text that opens with a field, such as `tools[0].function.parameters: …`; others stay as they are.
pub(super) fn text(text: &str, name: impl Fn(&str) -> String) -> String {
    match text.split_once(": ") {
        Some((param, rest)) if !param.contains(' ') => format!("{}: {rest}", name(param)),
        _ => text.to_owned(),
    }
}
