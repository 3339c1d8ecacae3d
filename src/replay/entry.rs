//! One line of a recording.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Answer;

/// A request that was answered, as JSON on one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The request's id, as in the log and in `x-request-id`.
    pub id: String,
    /// Such as `/v1/chat/completions`.
    pub route: String,
    /// `system_fingerprint` of the server that answered.
    pub fingerprint: String,
    /// As the client sent it, with the seed that was used.
    pub request: Map<String, Value>,
    pub answer: Answer,
}
