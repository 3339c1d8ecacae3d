//! Two reports against each other: ratios of medians, and whether the second is worse than allowed.

use std::{fs, path::Path};

use super::{
    Error,
    report::{Better, Metric, Report},
    stats::Summary,
};

/// Prints the comparison; `false` when a median of `b` is worse than `max_regression` (a share) allows.
pub(super) fn files(a: &Path, b: &Path, max_regression: Option<f64>) -> Result<bool, Error> {
    let rows = rows(&read(a)?, &read(b)?);
    if rows.is_empty() {
        return Err(Error::NothingInCommon);
    }
    println!(
        "{:>8} {:>7}  {:26}  {:>16}  {:>16}  {:>6}",
        "prompt", "clients", "median (spread)", "A", "B", "B/A"
    );
    let mut fine = true;
    for row in rows {
        let verdict = match max_regression {
            Some(allowed) if row.regression() > allowed => {
                fine = false;
                "  worse than allowed"
            }
            _ => "",
        };
        println!("{row}{verdict}");
    }
    Ok(fine)
}

/// `5%` or `0.05` as a share.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if share >= 0.0 && share.is_finite() => Ok(share),
        _ => Err("a percentage such as 5% is expected".to_owned()),
    }
}

fn read(path: &Path) -> Result<Report, Error> {
    let text = fs::read_to_string(path).map_err(|cause| Error::File {
        path: path.to_owned(),
        cause,
    })?;
    serde_json::from_str(&text).map_err(|cause| Error::Report {
        path: path.to_owned(),
        cause,
    })
}

#[derive(Debug)]
struct Row {
    prompt: String,
    clients: u32,
    metric: Metric,
    a: Summary,
    b: Summary,
}

/// The first target of each report; points and metrics that both have.
fn rows(a: &Report, b: &Report) -> Vec<Row> {
    let (Some(a), Some(b)) = (a.targets.first(), b.targets.first()) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for left in &a.points {
        for right in b.points.iter().filter(|point| point.same_load(left)) {
            for (metric, summary) in &left.metrics {
                if let Some(other) = right.metrics.get(metric) {
                    rows.push(Row {
                        prompt: words(&left.prompt_words),
                        clients: left.concurrency,
                        metric: *metric,
                        a: summary.clone(),
                        b: other.clone(),
                    });
                }
            }
        }
    }
    rows
}

fn words(lengths: &[u32]) -> String {
    let lengths: Vec<String> = lengths.iter().map(u32::to_string).collect();
    lengths.join("+")
}

impl Row {
    fn ratio(&self) -> f64 {
        self.b.median / self.a.median
    }

    /// How much worse B is, as a share of A; negative when it is better.
    fn regression(&self) -> f64 {
        match self.metric.better() {
            Better::More => 1.0 - self.ratio(),
            Better::Less => self.ratio() - 1.0,
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cell = |s: &Summary| format!("{:.2} ({:.1} %)", s.median, s.spread() * 100.0);
        write!(
            f,
            "{:>8} {:>7}  {:26}  {:>16}  {:>16}  {:>6.3}",
            self.prompt,
            self.clients,
            self.metric.title(),
            cell(&self.a),
            cell(&self.b),
            self.ratio()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    fn regression(metric: Metric, a: f64, b: f64) -> f64 {
        let rows = rows(&report("a", &[(metric, a)]), &report("b", &[(metric, b)]));
        assert_eq!(rows.len(), 1);
        rows[0].regression()
    }

    #[test]
    fn slower_decoding_and_longer_waiting_are_both_regressions() {
        assert!(regression(Metric::Decode, 100.0, 90.0) > 0.09);
        assert!(regression(Metric::Decode, 100.0, 110.0) < 0.0);
        assert!(regression(Metric::FirstToken, 10.0, 11.0) > 0.09);
        assert!(regression(Metric::FirstToken, 10.0, 9.0) < 0.0);
    }

    #[test]
    fn points_of_different_load_are_not_compared() {
        let a = report("a", &[(Metric::Decode, 1.0)]);
        let mut b = a.clone();
        b.targets[0].points[0].concurrency = 8;
        assert!(rows(&a, &b).is_empty());
    }

    #[test]
    fn the_exit_code_follows_the_allowed_regression() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, decode: f64| {
            let path = folder.path().join(name);
            let text = serde_json::to_string(&report(name, &[(Metric::Decode, decode)])).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let (a, b) = (write("a", 100.0), write("b", 94.0));
        assert!(!files(&a, &b, Some(0.05)).unwrap());
        assert!(files(&a, &b, Some(0.10)).unwrap());
        assert!(files(&a, &b, None).unwrap());
    }

    #[test]
    fn percentages_are_read_as_shares() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("0.05"), Ok(0.05));
        assert!(percent("-1%").is_err() && percent("much").is_err());
    }
}
