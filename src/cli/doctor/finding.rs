//! One thing that was looked at: how it is, and the cure if it is not well.

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) subject: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What to do; none when all is well.
    pub(super) cure: Option<String>,
}

/// The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// It works, but not as well as it could, or only for now.
    Warn,
    /// The server would not start, or not do what the configuration asks.
    Fail,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl Finding {
    pub(super) fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Ok,
            found: found.into(),
            cure: None,
        }
    }

    pub(super) fn warn(
        subject: &'static str,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            subject,
            verdict: Verdict::Warn,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }

    pub(super) fn fail(
        subject: &'static str,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(subject, found, cure)
        }
    }
}
