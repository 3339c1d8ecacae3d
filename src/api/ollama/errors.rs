//! Errors in Ollama's shape, `{"error": "text"}`, in terms of the fields that its callers know.

use axum::{
    Json,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::options;
use crate::api::error::ApiError;

#[derive(Serialize)]
pub(super) struct Body {
    error: String,
}

impl From<&ApiError> for Body {
    fn from(error: &ApiError) -> Self {
        Self {
            error: match error {
                // Clients that would pull a missing model look for these words.
                ApiError::UnknownModel { wanted, .. } => format!("model '{wanted}' not found"),
                error => error.to_string(),
            },
        }
    }
}

/// Middleware around all routes: under `/api/`, whatever failed is told Ollama's way.
pub(in crate::api) async fn own_words(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    if ours && let Some(error) = response.extensions_mut().remove::<ApiError>() {
        *response.body_mut() = Json(Body::from(&error)).into_response().into_body();
    }
    response
}

/// What OpenAI's dialect calls fields that have another name here.
const NAMES: [(&str, &str); 6] = [
    ("enable_thinking", "think"),
    ("json_schema", "format"),
    ("max_completion_tokens", "options.num_predict"),
    ("reasoning_effort", "think"),
    ("response_format", "format"),
    ("stop", "options.stop"),
];

/// The error with the name that the caller gave the field.
pub(super) fn as_asked(error: ApiError) -> ApiError {
    let ApiError::Invalid { param, message } = error else {
        return error;
    };
    // An image stands among the parts of a chat's content, in front of the text.
    if let Some((message_path, rest)) = param.split_once(".content[")
        && let Some((at, _)) = rest.split_once(']')
    {
        let named = format!("{message_path}.images[{at}]");
        let message = message.replacen(&param, &named, 1);
        return ApiError::invalid(named, message);
    }
    let head = param.split(['.', '[', '#']).next().unwrap_or_default();
    let found = NAMES.iter().find(|(theirs, _)| *theirs == head);
    let ours = match found {
        Some((_, ours)) => (*ours).to_owned(),
        None if options::SAME.contains(&head) => format!("options.{head}"),
        None => return ApiError::Invalid { param, message },
    };
    let rest = &param[head.len()..];
    let named = format!("{ours}{rest}");
    let message = match message.strip_prefix(param.as_str()) {
        Some(why) => format!("{named}{why}"),
        None => message,
    };
    ApiError::invalid(named, message)
}

/// The same for a request that is no list of messages: what is wrong with its images is its own.
pub(super) fn as_generated(error: ApiError) -> ApiError {
    let named = as_asked(error);
    let ApiError::Invalid { param, message } = &named else {
        return named;
    };
    match param.split_once("].images[") {
        Some((list, at)) if list.starts_with("messages[") => {
            let ours = format!("images[{at}");
            ApiError::invalid(ours.as_str(), message.replacen(param, &ours, 1))
        }
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_names_that_ollamas_callers_gave_them() {
        let told = |param: &str| {
            let error = ApiError::invalid(param, format!("{param}: expected more"));
            as_asked(error).to_string()
        };
        assert_eq!(told("top_p"), "options.top_p: expected more");
        assert_eq!(
            told("max_completion_tokens"),
            "options.num_predict: expected more"
        );
        assert_eq!(told("json_schema#/type"), "format#/type: expected more");
        assert_eq!(told("messages[0].role"), "messages[0].role: expected more");
    }
}
