//! The workers of `engine.rpc`: each is there, free, and of the same release.

use super::Finding;
use crate::engine::{
    llama,
    rpc::{self, Unusable},
};

const SUBJECT: &str = "workers";

/// One for each worker; nothing where none is named.
pub(super) fn findings(workers: &[String]) -> Vec<Finding> {
    workers.iter().map(|worker| finding(worker)).collect()
}

fn finding(worker: &str) -> Finding {
    match rpc::greet(worker, llama::protocol()) {
        Ok(()) => Finding::ok(SUBJECT, format!("{worker} lends its devices")),
        Err(unusable @ Unusable::Silent { .. }) => Finding::warn(
            SUBJECT,
            unusable.to_string(),
            "if the server that it serves is the one of this configuration, all is well; memory was not looked at",
        ),
        Err(unusable) => Finding::fail(SUBJECT, unusable.to_string(), cure(&unusable)),
    }
}

fn cure(unusable: &Unusable) -> &'static str {
    match unusable {
        Unusable::NoPlugin => {
            "install the package whole: libggml-rpc.so belongs among its backends"
        }
        Unusable::Unknown { .. } => "name it by an IPv4 address, or by a name that has one",
        Unusable::Unreachable { .. } | Unusable::Silent { .. } => {
            "start `llm-server rpc-worker` there (unit llm-server-rpc.service), and let this machine through its firewall"
        }
        Unusable::Stranger { .. } | Unusable::Refused { .. } | Unusable::OtherVersion { .. } => {
            "run `llm-server rpc-worker` of this release there"
        }
    }
}
