//! What was measured: JSON for machines, a table for people.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    request::{Endpoint, Target},
    stats::Summary,
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
    pub(super) max_tokens: u32,
    pub(super) runs: u32,
    pub(super) hangup: f64,
    pub(super) mixed: bool,
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TargetReport {
    pub(super) label: String,
    pub(super) url: String,
    pub(super) model: String,
    pub(super) points: Vec<Point>,
}

/// One combination of prompt lengths and clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Point {
    /// As asked for.
    pub(super) prompt_words: Vec<u32>,
    pub(super) concurrency: u32,
    pub(super) requests: u32,
    /// Median over the answers, as the server counted.
    pub(super) prompt_tokens: f64,
    /// Sum over the answers: anything but about zero says that a cache helped.
    pub(super) cached_tokens: u64,
    pub(super) metrics: BTreeMap<Metric, Summary>,
    /// `answered`, `hung_up`, `broken` and `status_NNN`, over all runs.
    pub(super) outcomes: BTreeMap<String, u32>,
    /// Why requests broke.
    pub(super) faults: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Metric {
    /// From sending to the first token.
    #[serde(rename = "ttft_ms")]
    FirstToken,
    /// Prompt tokens a second until the first token, median of the streams.
    #[serde(rename = "prompt_tps")]
    Prompt,
    /// Tokens a second after the first, median of the streams.
    #[serde(rename = "decode_tps")]
    Decode,
    /// Generated tokens of all streams over the wall time of the run.
    #[serde(rename = "total_tps")]
    Total,
    #[serde(rename = "gap_p50_ms")]
    GapMedian,
    #[serde(rename = "gap_p99_ms")]
    Gap99,
    #[serde(rename = "gap_max_ms")]
    GapMax,
}

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

impl Metric {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::FirstToken => "first token, ms",
            Self::Prompt => "prompt, tok/s",
            Self::Decode => "decode per stream, tok/s",
            Self::Total => "generated in total, tok/s",
            Self::GapMedian => "gap p50, ms",
            Self::Gap99 => "gap p99, ms",
            Self::GapMax => "gap max, ms",
        }
    }

    pub(super) fn better(self) -> Better {
        match self {
            Self::Prompt | Self::Decode | Self::Total => Better::More,
            Self::FirstToken | Self::GapMedian | Self::Gap99 | Self::GapMax => Better::Less,
        }
    }
}

impl TargetReport {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            label: target.label.clone(),
            url: target.base.clone(),
            model: target.model.clone(),
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
    fn broken(&self) -> u32 {
        let fine = ["answered", "hung_up", "status_429"];
        let counts = self.outcomes.iter();
        counts
            .filter(|(kind, _)| !fine.contains(&kind.as_str()))
            .map(|(_, count)| count)
            .sum()
    }

    /// Points of two targets or reports that may be compared.
    pub(super) fn same_load(&self, other: &Self) -> bool {
        (&self.prompt_words, self.concurrency, self.requests)
            == (&other.prompt_words, other.concurrency, other.requests)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.targets.first() else {
            return Ok(());
        };
        for index in 0..first.points.len() {
            self.write_point(f, index)?;
        }
        Ok(())
    }
}

impl Report {
    fn write_point(&self, f: &mut fmt::Formatter<'_>, index: usize) -> fmt::Result {
        let points: Vec<&Point> = self.targets.iter().map(|t| &t.points[index]).collect();
        let first = points[0];
        writeln!(
            f,
            "\nprompt {:.0} tokens, answer {}{} tokens, {} clients, {} runs of {} requests",
            first.prompt_tokens,
            if self.settings.mixed { "up to " } else { "" },
            self.settings.max_tokens,
            first.concurrency,
            self.settings.runs,
            first.requests
        )?;
        write!(f, "{:26}", "median (min … max)")?;
        for target in &self.targets {
            write!(f, "  {:>32}", target.label)?;
        }
        writeln!(f, "{}", if points.len() == 2 { "   ratio" } else { "" })?;
        for (metric, summary) in &first.metrics {
            write!(f, "{:26}", metric.title())?;
            for point in &points {
                let cell = point.metrics.get(metric).map(cell).unwrap_or_default();
                write!(f, "  {cell:>32}")?;
            }
            if let [_, other] = points[..]
                && let Some(other) = other.metrics.get(metric)
            {
                write!(f, "  {:>6.3}", summary.median / other.median)?;
            }
            writeln!(f)?;
        }
        for (target, point) in self.targets.iter().zip(&points) {
            write_outcomes(f, target, point)?;
        }
        Ok(())
    }
}

fn cell(summary: &Summary) -> String {
    format!(
        "{:.2} ({:.2} … {:.2})",
        summary.median, summary.min, summary.max
    )
}

/// Silent when all was answered and no cache helped.
fn write_outcomes(f: &mut fmt::Formatter<'_>, of: &TargetReport, point: &Point) -> fmt::Result {
    if point.outcomes.keys().any(|kind| kind != "answered") {
        let counts = point.outcomes.iter();
        let counts: Vec<String> = counts.map(|(kind, n)| format!("{kind} {n}")).collect();
        writeln!(f, "{}: {}", of.label, counts.join(", "))?;
    }
    if point.cached_tokens > 0 {
        let tokens = point.cached_tokens;
        writeln!(f, "{}: {tokens} prompt tokens came from a cache", of.label)?;
    }
    for fault in point.faults.iter().take(5) {
        writeln!(f, "{}: broken: {fault}", of.label)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report of one point with one figure a metric.
    pub(in super::super) fn report(label: &str, metrics: &[(Metric, f64)]) -> Report {
        let summary = |value: f64| Summary::of(vec![value]).expect("one run");
        Report {
            tool: "llm-server bench test".to_owned(),
            settings: Settings {
                endpoint: Endpoint::Completions,
                max_tokens: 16,
                runs: 1,
                hangup: 0.0,
                mixed: false,
                seed: 1,
            },
            targets: vec![TargetReport {
                label: label.to_owned(),
                url: "http://127.0.0.1:1".to_owned(),
                model: "m".to_owned(),
                points: vec![Point {
                    prompt_words: vec![512],
                    concurrency: 1,
                    requests: 1,
                    prompt_tokens: 513.0,
                    cached_tokens: 0,
                    metrics: metrics.iter().map(|&(m, v)| (m, summary(v))).collect(),
                    outcomes: BTreeMap::from([("answered".to_owned(), 1)]),
                    faults: vec![],
                }],
            }],
        }
    }

    #[test]
    fn two_targets_are_shown_side_by_side_with_their_ratio() {
        let mut both = report(
            "ours",
            &[(Metric::Decode, 110.0), (Metric::FirstToken, 8.0)],
        );
        let theirs = report(
            "theirs",
            &[(Metric::Decode, 100.0), (Metric::FirstToken, 10.0)],
        );
        both.targets.extend(theirs.targets);
        insta::assert_snapshot!(both.to_string(), @r"
        prompt 513 tokens, answer 16 tokens, 1 clients, 1 runs of 1 requests
        median (min … max)                                      ours                            theirs   ratio
        first token, ms                           8.00 (8.00 … 8.00)             10.00 (10.00 … 10.00)   0.800
        decode per stream, tok/s            110.00 (110.00 … 110.00)          100.00 (100.00 … 100.00)   1.100
        ");
    }

    #[test]
    fn a_report_survives_its_file() {
        let report = report("ours", &[(Metric::Decode, 110.0)]);
        let text = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(read.to_string(), report.to_string());
        assert!(text.contains("\"decode_tps\""));
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
