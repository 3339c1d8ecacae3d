//! Two reports against each other: ratios of medians, and whether the second is worse than allowed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    Error,
    metric::{Better, Metric},
    report::{Point, Report, Settings, TargetReport},
    stats::{Summary, quantile, ratio, sorted},
    workload::Load,
};

/// Which reports, and how much worse the second may be.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A report with several servers is named with the one that is meant: speed.json#ours.
Both must have measured the same workloads, clients and endpoint.

Behind each ratio of medians B/A stands its spread: the middle half of the ratios of every
run of B to every run of A. With --max-regression a figure has become worse when
  - the median of B is worse than that of A by more than the given share, and
  - it is worse in at least three of four pairs of runs (one of A, one of B): a difference
    that is not the spread, and
  - it differs by more than 0.1 ms or 1 MiB, where it is a time or a memory.
Worse as well: a speed or time that A has and B lacks, and more broken requests in B than in A.")]
pub(super) struct Compare {
    /// The report to compare with, as FILE or FILE#LABEL.
    a: PathBuf,
    /// The report in question, as FILE or FILE#LABEL.
    b: PathBuf,
    /// How much worse a median may be, such as `5%`; without it, nothing counts as too much.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_regression: Option<f64>,
}

/// Prints the comparison; `false` when B is worse than allowed.
pub(super) fn run(args: &Compare) -> Result<bool, Error> {
    let (a, b) = (One::read(&args.a)?, One::read(&args.b)?);
    let comparison = Comparison::of(&a, &b)?;
    print!("{}", comparison.table(args.max_regression));
    let allowed = args.max_regression.unwrap_or(f64::INFINITY);
    Ok(allowed.is_infinite() || comparison.worse(allowed) == 0)
}

/// `5%` or `0.05` as a share.
fn percent(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if share >= 0.0 && share.is_finite() => Ok(share),
        _ => Err("a percentage such as 5% is expected".to_owned()),
    }
}

/// One server of a report.
#[derive(Debug, Clone)]
struct One {
    settings: Settings,
    target: TargetReport,
}

impl One {
    fn read(name: &Path) -> Result<Self, Error> {
        let (path, label) = split(name);
        let text = fs::read_to_string(path).map_err(|cause| Error::File {
            path: path.to_owned(),
            cause,
        })?;
        let report: Report = serde_json::from_str(&text).map_err(|cause| Error::Report {
            path: path.to_owned(),
            cause,
        })?;
        Self::choose(path, report, label)
    }

    fn choose(path: &Path, report: Report, label: Option<&str>) -> Result<Self, Error> {
        let labels = || {
            let names = report.targets.iter().map(|target| target.label.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let mut targets = report.targets.iter();
        let target = match (label, &report.targets[..]) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(label), _) => targets.find(|target| target.label == label),
        };
        let Some(target) = target.cloned() else {
            return Err(Error::WhichServer {
                path: path.to_owned(),
                labels: labels(),
            });
        };
        let settings = report.settings;
        Ok(Self { settings, target })
    }
}

/// `FILE#LABEL`, unless a file has that very name.
fn split(name: &Path) -> (&Path, Option<&str>) {
    let parts = name.to_str().and_then(|text| text.rsplit_once('#'));
    match parts {
        Some((path, label)) if !name.exists() => (Path::new(path), Some(label)),
        _ => (name, None),
    }
}

/// The points of two servers, paired.
struct Comparison<'a> {
    a: &'a One,
    b: &'a One,
    pairs: Vec<(&'a Point, &'a Point)>,
}

impl<'a> Comparison<'a> {
    fn of(a: &'a One, b: &'a One) -> Result<Self, Error> {
        if a.settings.endpoint != b.settings.endpoint {
            let (a, b) = (a.settings.endpoint, b.settings.endpoint);
            return Err(Error::Different(format!("A asked at {a:?}, B at {b:?}")));
        }
        let lacks = |one: &One, other: &One| -> Vec<String> {
            let points = one.target.points.iter();
            let missing = points.filter(|point| find(other, &point.load).is_none());
            missing.map(|point| in_full(&point.load)).collect()
        };
        let (only_a, only_b) = (lacks(a, b), lacks(b, a));
        let mut reasons = Vec::new();
        for (name, only) in [("A", only_a), ("B", only_b)] {
            if !only.is_empty() {
                reasons.push(format!("only {name} measured {}", only.join("; ")));
            }
        }
        if !reasons.is_empty() {
            return Err(Error::Different(reasons.join(", and ")));
        }
        let points = a.target.points.iter();
        let pairs: Vec<_> = points
            .filter_map(|point| Some((point, find(b, &point.load)?)))
            .collect();
        if pairs.is_empty() {
            return Err(Error::Different("neither measured anything".to_owned()));
        }
        Ok(Self { a, b, pairs })
    }

    /// How many figures and points are worse than allowed.
    fn worse(&self, allowed: f64) -> usize {
        let of = |(a, b): &(&Point, &Point)| {
            let rows = rows(a, b);
            let worse = rows.iter().filter(|row| row.is_worse(allowed)).count();
            worse + usize::from(breaks_more(a, b))
        };
        self.pairs.iter().map(of).sum()
    }

    fn table(&self, allowed: Option<f64>) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        let (a, b) = (&self.a.target, &self.b.target);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "A: {} ({}), B: {} ({})",
            a.label, a.model, b.label, b.model
        );
        if a.model != b.model {
            text += "The models differ.\n";
        }
        if self.a.settings.body != self.b.settings.body {
            text += "The fields added to the requests (--body) differ.\n";
        }
        for (a, b) in &self.pairs {
            let _ = writeln!(
                text,
                "\n{:32}  {:>12}  {:>12}  {:>6}",
                a.load.to_string(),
                "A",
                "B",
                "B/A"
            );
            for row in rows(a, b) {
                let worse = allowed.is_some_and(|allowed| row.is_worse(allowed));
                let verdict = if worse { "  worse than allowed" } else { "" };
                let _ = writeln!(text, "{row}{verdict}");
            }
            if breaks_more(a, b) {
                let _ = writeln!(text, "broken requests: A {}, B {}", a.broken(), b.broken());
            }
        }
        text
    }
}

fn find<'a>(one: &'a One, load: &Load) -> Option<&'a Point> {
    one.target.points.iter().find(|point| point.load == *load)
}

fn in_full(load: &Load) -> String {
    let turns = load.turns;
    let words = &load.prompt_words;
    format!(
        "{load} (prompts {words:?}, answers {}, turns {turns})",
        load.answer
    )
}

fn breaks_more(a: &Point, b: &Point) -> bool {
    b.broken() > a.broken()
}

/// One figure of one point; at least one side has it.
struct Row<'a> {
    metric: Metric,
    a: Option<&'a Summary>,
    b: Option<&'a Summary>,
}

fn rows<'a>(a: &'a Point, b: &'a Point) -> Vec<Row<'a>> {
    let mut metrics: Vec<Metric> = a.metrics.keys().chain(b.metrics.keys()).copied().collect();
    metrics.sort();
    metrics.dedup();
    let row = |metric| Row {
        metric,
        a: a.metrics.get(&metric),
        b: b.metrics.get(&metric),
    };
    metrics.into_iter().map(row).collect()
}

impl Row<'_> {
    /// How much worse `b` is than `a`, in the figure's own unit.
    fn loss(&self, a: f64, b: f64) -> f64 {
        match self.metric.better() {
            Better::More => a - b,
            Better::Less => b - a,
        }
    }

    /// The rule in the help text. Products instead of ratios: a median of zero is no special case.
    fn is_worse(&self, allowed: f64) -> bool {
        let (a, b) = match (self.a, self.b) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => return !self.metric.is_memory(),
            (None, _) => return false,
        };
        let loss = self.loss(a.median, b.median);
        let worse = pairs(a, b).filter(|&(a, b)| self.loss(a, b) > 0.0).count();
        loss > allowed * a.median
            && loss > self.metric.negligible()
            && worse * 4 >= a.runs.len() * b.runs.len() * 3
    }
}

/// Every run of B beside every run of A.
fn pairs(a: &Summary, b: &Summary) -> impl Iterator<Item = (f64, f64)> {
    let beside = |&b: &f64| a.runs.iter().map(move |&a| (a, b));
    b.runs.iter().flat_map(beside)
}

/// The middle half of the ratios B/A of all pairs of runs.
fn spread(a: &Summary, b: &Summary) -> Option<(f64, f64)> {
    let ratios = sorted(pairs(a, b).filter_map(|(a, b)| ratio(b, a)).collect());
    Some((quantile(&ratios, 0.25)?, quantile(&ratios, 0.75)?))
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |side: Option<&Summary>| {
            side.map_or("–".to_owned(), |summary| format!("{:.2}", summary.median))
        };
        write!(
            f,
            "  {:30}  {:>12}  {:>12}",
            self.metric.title(),
            cell(self.a),
            cell(self.b)
        )?;
        let (Some(a), Some(b)) = (self.a, self.b) else {
            return write!(f, "  {:>6}", "–");
        };
        match ratio(b.median, a.median) {
            Some(ratio) => write!(f, "  {ratio:>6.3}")?,
            None => write!(f, "  {:>6}", "–")?,
        }
        match spread(a, b) {
            Some((low, high)) => write!(f, "  ({low:.3} … {high:.3})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
