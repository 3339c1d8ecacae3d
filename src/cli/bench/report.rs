//! What was measured, as the JSON file has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    metric::Metric,
    request::{Endpoint, Target},
    stats::Summary,
    workload::Load,
};

/// Everything of one call of `llm-server bench`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    /// Program and version.
    pub(super) tool: String,
    pub(super) settings: Settings,
    pub(super) targets: Vec<TargetReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) runs: u32,
    pub(super) seed: u64,
    /// Fields that were added to every request.
    pub(super) body: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TargetReport {
    pub(super) label: String,
    pub(super) url: String,
    pub(super) model: String,
    /// Process whose memory was measured.
    pub(super) pid: Option<u32>,
    pub(super) points: Vec<Point>,
}

/// One combination of workload and clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Point {
    #[serde(flatten)]
    pub(super) load: Load,
    /// Median over the answers, as the server counted.
    pub(super) prompt_tokens: f64,
    /// Sum over the answers: but for conversations, anything but about zero says that a cache helped.
    pub(super) cached_tokens: u64,
    /// Answers whose tokens the client had to count.
    pub(super) without_usage: u32,
    /// Each over the runs.
    pub(super) metrics: BTreeMap<Metric, Summary>,
    /// Between tokens, over all gaps of all runs; `None`: no answer had two events with text.
    pub(super) gaps: Option<Gaps>,
    /// `answered`, `hung_up`, `broken` and `status_NNN`, over all runs.
    pub(super) outcomes: BTreeMap<String, u32>,
    /// Why requests broke.
    pub(super) faults: Vec<String>,
}

/// The times between neighbouring events with text.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Gaps {
    pub(super) count: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl TargetReport {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            label: target.label.clone(),
            url: target.base.clone(),
            model: target.model.clone(),
            pid: target.pid,
            points: Vec::new(),
        }
    }
}

impl Report {
    /// Requests that ended in no documented way.
    pub(super) fn broken(&self) -> u32 {
        let points = self.targets.iter().flat_map(|target| &target.points);
        points.map(Point::broken).sum()
    }
}

impl Point {
    pub(super) fn broken(&self) -> u32 {
        let fine = ["answered", "hung_up", "status_429"];
        let counts = self.outcomes.iter();
        counts
            .filter(|(kind, _)| !fine.contains(&kind.as_str()))
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::workload::Answer, *};

    pub(in super::super) fn load() -> Load {
        Load {
            workload: "medium".to_owned(),
            prompt_words: vec![512],
            answer: Answer::Exactly(256),
            turns: 1,
            concurrency: 1,
            requests: 1,
            hangup: 0.0,
        }
    }

    /// A report of one point with the runs of each metric.
    pub(in super::super) fn report(label: &str, metrics: &[(Metric, &[f64])]) -> Report {
        let summary = |runs: &[f64]| Summary::of(runs.to_vec()).expect("one run");
        Report {
            tool: "llm-server bench test".to_owned(),
            settings: Settings {
                endpoint: Endpoint::Completions,
                runs: 1,
                seed: 1,
                body: Map::new(),
            },
            targets: vec![TargetReport {
                label: label.to_owned(),
                url: "http://127.0.0.1:1".to_owned(),
                model: "m".to_owned(),
                pid: None,
                points: vec![Point {
                    load: load(),
                    prompt_tokens: 513.0,
                    cached_tokens: 0,
                    without_usage: 0,
                    metrics: metrics
                        .iter()
                        .map(|&(m, runs)| (m, summary(runs)))
                        .collect(),
                    gaps: None,
                    outcomes: BTreeMap::from([("answered".to_owned(), 1)]),
                    faults: vec![],
                }],
            }],
        }
    }

    #[test]
    fn a_report_survives_its_file() {
        let report = report("ours", &[(Metric::Decode, &[110.0, 112.0])]);
        let text = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(text.contains("\"decode_tps\"") && text.contains("\"concurrency\""));
    }

    #[test]
    fn only_answers_hang_ups_and_429_are_not_broken() {
        let mut report = report("ours", &[]);
        let outcomes = &mut report.targets[0].points[0].outcomes;
        for (kind, count) in [
            ("hung_up", 2),
            ("status_429", 3),
            ("status_500", 4),
            ("broken", 5),
        ] {
            outcomes.insert(kind.to_owned(), count);
        }
        assert_eq!(report.broken(), 9);
    }
}
