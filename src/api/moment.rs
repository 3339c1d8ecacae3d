//! Points in time as RFC 3339 has them.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(super) fn now() -> String {
    told(OffsetDateTime::now_utc())
}

/// `seconds` since the epoch.
pub(super) fn at(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    told(OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

fn told(moment: OffsetDateTime) -> String {
    // Only years beyond 9999 cannot be told.
    moment.format(&Rfc3339).unwrap_or_default()
}
