//! Every way a request fails, and what the client is told: status, body, and whether to try again.

use std::{any::Any, time::Duration};

use axum::{
    Json,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    chat::ChatError,
    engine::{Failed, Refused},
};

/// Everything that can go wrong between a request's first byte and its last token.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    #[error("{message}")]
    Invalid { param: String, message: String },
    /// The engine or the chat template refused something that has no single parameter to blame.
    #[error("{0}")]
    Unacceptable(String),
    #[error(
        "This model's maximum context length is {context} tokens. However, your {param} resulted in {prompt} tokens. \
         Please reduce the length of the {param}."
    )]
    ContextLength {
        param: &'static str,
        prompt: usize,
        context: u32,
    },
    #[error("{param}: {tokens} tokens are more than the {longest} that can be read{}", raise(*.limit))]
    TextLength {
        param: String,
        tokens: usize,
        longest: u32,
        /// The setting that bounds it, unless it is the model itself.
        limit: Option<&'static str>,
    },
    #[error("{0}")]
    WrongWork(String),
    #[error(
        "an API key is required: send it as `Authorization: Bearer KEY` or in the header `x-api-key`"
    )]
    NoKey,
    #[error("the API key is not one that this server accepts")]
    WrongKey,
    #[error("the API key `{key}` may not use {path}")]
    Forbidden { key: String, path: String },
    #[error("there is no {method} {path} here")]
    NoRoute { method: Method, path: String },
    #[error("{path} does not answer to {method}")]
    WrongMethod { method: Method, path: String },
    #[error("the model `{wanted}` does not exist; this server serves `{served}`")]
    UnknownModel { wanted: String, served: String },
    #[error("{kind} with id '{id}' not found.")]
    Unknown { kind: &'static str, id: String },
    // The words of OpenAI, and its status: the path exists.
    #[error("Previous response with id '{0}' not found.")]
    UnknownPrevious(String),
    #[error("the body was not received within {0:?}")]
    ReceiveTimeout(Duration),
    #[error("the body broke off: {0}")]
    BrokenBody(String),
    #[error(
        "the body is encoded as `{0}`, which is not read here; send it without `content-encoding`"
    )]
    Encoded(String),
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: u64 },
    #[error("the server is busy: {queued} requests are waiting already")]
    QueueFull {
        queued: u32,
        /// When these will have had their turn, as far as is known.
        wait: Option<Duration>,
    },
    #[error("the server is busy: no sequence became free within {0:?}")]
    QueueWait(Duration),
    #[error("no sequence is free")]
    NoFreeSequence,
    #[error(
        "the server is busy: {0} requests of this key are waiting already, which is its share of the queue"
    )]
    Share(u32),
    #[error("the server is busy: no JSON schema or grammar could be compiled within {0:?}")]
    Compilers(Duration),
    #[error("the server is busy: no image or sound could be decoded within {0:?}")]
    Images(Duration),
    // Launchers compare this text.
    #[error("Loading model")]
    Loading,
    #[error("the server is shutting down")]
    Draining,
    #[error("the engine has stopped; the server is about to restart")]
    EngineDead,
    #[error("the request ran longer than the {0:?} that this server allows")]
    Deadline(Duration),
    /// The cause goes to the log only.
    #[error("the server failed to answer this request")]
    Internal(String),
}

/// The parts of the answer that depend on the variant alone.
struct Kind {
    status: StatusCode,
    r#type: &'static str,
    code: Option<&'static str>,
    retry: Retry,
}

/// Official clients try 408, 409, 429 and every 5xx again unless told otherwise.
enum Retry {
    /// The status says it all.
    Unsaid,
    Useless,
    After(Duration),
}

impl ApiError {
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            param: param.into(),
            message: message.into(),
        }
    }

    /// `param`: the field that the prompt came from.
    pub(crate) fn refused(refused: &Refused, param: &'static str) -> Self {
        match *refused {
            Refused::Full { queued, wait } => Self::QueueFull { queued, wait },
            Refused::Stopped => Self::Draining,
            Refused::Empty => Self::invalid(param, format!("{param}: must not be empty")),
            Refused::TooLong { prompt, context } => Self::ContextLength {
                param,
                prompt,
                context,
            },
            Refused::BadToken(token) => Self::invalid(
                param,
                format!("{param}: token {token} is not in this model's vocabulary"),
            ),
        }
    }

    // No wildcard arm: a new variant must choose its status, its names and its retry.
    fn kind(&self) -> Kind {
        use Retry::{After, Unsaid, Useless};
        use StatusCode as S;
        const INVALID: &str = "invalid_request_error";
        // Later nobody knows; and some clients obey to the letter.
        const LONGEST_WAIT: Duration = Duration::from_mins(1);
        const SECOND: Duration = Duration::from_secs(1);
        let bad = |code| (S::BAD_REQUEST, INVALID, Some(code), Unsaid);
        let busy = |code, wait| {
            let kind = "rate_limit_error";
            (S::TOO_MANY_REQUESTS, kind, Some(code), After(wait))
        };
        let away = |code, wait| {
            let kind = "unavailable_error";
            (S::SERVICE_UNAVAILABLE, kind, Some(code), After(wait))
        };
        let (status, r#type, code, retry) = match self {
            Self::Json(_) | Self::BrokenBody(_) => (S::BAD_REQUEST, INVALID, None, Unsaid),
            Self::Invalid { .. } | Self::Unacceptable(_) => bad("invalid_value"),
            Self::ContextLength { .. } | Self::TextLength { .. } => bad("context_length_exceeded"),
            Self::WrongWork(_) => bad("unsupported_by_model"),
            Self::NoKey | Self::WrongKey => {
                (S::UNAUTHORIZED, INVALID, Some("invalid_api_key"), Unsaid)
            }
            Self::Forbidden { .. } => {
                let code = "route_not_allowed";
                (S::FORBIDDEN, "permission_error", Some(code), Unsaid)
            }
            Self::NoRoute { .. } => (S::NOT_FOUND, INVALID, Some("unknown_url"), Unsaid),
            Self::WrongMethod { .. } => {
                let code = "method_not_allowed";
                (S::METHOD_NOT_ALLOWED, INVALID, Some(code), Unsaid)
            }
            Self::UnknownModel { .. } => (S::NOT_FOUND, INVALID, Some("model_not_found"), Unsaid),
            Self::Unknown { .. } => (S::NOT_FOUND, INVALID, None, Unsaid),
            Self::UnknownPrevious(_) => bad("previous_response_not_found"),
            Self::ReceiveTimeout(_) => (S::REQUEST_TIMEOUT, "timeout_error", None, Unsaid),
            Self::Encoded(_) => {
                let code = "unsupported_encoding";
                (S::UNSUPPORTED_MEDIA_TYPE, INVALID, Some(code), Unsaid)
            }
            Self::BodyTooLarge { .. } => {
                let code = "request_too_large";
                (S::PAYLOAD_TOO_LARGE, INVALID, Some(code), Unsaid)
            }
            Self::QueueFull { wait, .. } => {
                let wait = wait.unwrap_or(SECOND).clamp(SECOND, LONGEST_WAIT);
                busy("queue_full", wait)
            }
            Self::QueueWait(_) => busy("queue_timeout", SECOND),
            Self::Share(_) => busy("queue_share_full", SECOND),
            Self::Compilers(_) => busy("compilers_busy", SECOND),
            Self::Images(_) => busy("images_busy", SECOND),
            // llama-server's health checks look for this status.
            Self::NoFreeSequence => away("no_slot_available", SECOND),
            Self::Loading => away("model_loading", SECOND),
            Self::Draining => away("shutting_down", 2 * SECOND),
            Self::EngineDead => away("engine_stopped", 5 * SECOND),
            // The same request would run as long again.
            Self::Deadline(_) => {
                let code = "deadline_exceeded";
                (S::GATEWAY_TIMEOUT, "timeout_error", Some(code), Useless)
            }
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "server_error", None, Unsaid),
        };
        Kind {
            status,
            r#type,
            code,
            retry,
        }
    }

    /// One word for the log.
    pub(crate) fn name(&self) -> &'static str {
        let Kind { r#type, code, .. } = self.kind();
        code.unwrap_or(r#type)
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } | Self::TextLength { param, .. } => Some(param),
            Self::ContextLength { param, .. } => Some(param),
            Self::UnknownModel { .. } => Some("model"),
            Self::UnknownPrevious(_) => Some("previous_response_id"),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind().status
    }

    /// The cause of what clients learn nothing about.
    pub(crate) fn log(&self) {
        if let Self::Internal(cause) = self {
            tracing::error!(%cause, "a request failed");
        }
    }

    /// `{"error":{…}}`, as a body or as the last event of a stream that broke.
    pub(crate) fn body(&self) -> impl Serialize + use<> {
        let Kind { r#type, code, .. } = self.kind();
        self.log();
        Body {
            error: Detail {
                message: self.to_string(),
                r#type,
                param: self.param().map(str::to_owned),
                code,
            },
        }
    }
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::QueueWait(wait) => Self::QueueWait(wait),
            Failed::Share(waiting) => Self::Share(waiting),
            Failed::Deadline(limit) => Self::Deadline(limit),
            Failed::Unacceptable(why) => Self::Unacceptable(why),
            Failed::Decode(cause) => Self::Internal(cause),
            Failed::Stopped => Self::Draining,
        }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        match error {
            // "messages[1].content: expected …"
            ChatError::Invalid(why) => match why.split_once(": ") {
                Some((path, _)) if is_path(path) => Self::invalid(path.to_owned(), why),
                _ => Self::Unacceptable(why),
            },
            ChatError::Internal(cause) => Self::Internal(cause),
        }
    }
}

/// How the longest text could be longer.
fn raise(limit: Option<&str>) -> String {
    limit.map_or_else(
        || " by this model".to_owned(),
        |setting| format!(" (the server's {setting})"),
    )
}

fn is_path(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.[]".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(part)
}

#[derive(Serialize)]
struct Body {
    error: Detail,
}

#[derive(Serialize)]
struct Detail {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Kind { status, retry, .. } = self.kind();
        let mut response = (status, Json(self.body())).into_response();
        // Other dialects word it anew.
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        match retry {
            Retry::Unsaid => {}
            Retry::Useless => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Retry::After(wait) => {
                headers.insert(header::RETRY_AFTER, wait.as_secs().into());
                let name = HeaderName::from_static("retry-after-ms");
                headers.insert(name, (wait.as_secs() * 1000).into());
            }
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            let plain = HeaderValue::from_static("identity");
            headers.insert(header::ACCEPT_ENCODING, plain);
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

pub(super) async fn no_route(method: Method, uri: Uri) -> ApiError {
    let path = uri.path().to_owned();
    ApiError::NoRoute { method, path }
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path().to_owned();
    ApiError::WrongMethod { method, path }
}

/// A bug: the client learns that much, the log the rest.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape of a panic handler"
)]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::Internal(format!("panic: {message}")).into_response()
}
