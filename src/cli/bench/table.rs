//! A report as tables for people: one for each workload and number of clients, the servers side by side.

use std::fmt;

use super::{
    metric::Metric,
    report::{Point, Report, TargetReport},
    stats::{Summary, ratio},
};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.targets.first().map_or(0, |first| first.points.len());
        (0..count).try_for_each(|index| self.write_point(f, index))
    }
}

impl Report {
    fn write_point(&self, f: &mut fmt::Formatter<'_>, index: usize) -> fmt::Result {
        let points: Vec<&Point> = self.targets.iter().map(|t| &t.points[index]).collect();
        let first = points[0];
        let load = &first.load;
        let prompt = match first.prompt_tokens {
            // Nobody answered.
            0.0 => "–".to_owned(),
            tokens => format!("{tokens:.0}"),
        };
        let turns = match load.turns {
            1 => String::new(),
            turns => format!(" in each of {turns} turns"),
        };
        writeln!(
            f,
            "\n{load}: prompt {prompt} tokens, answer {} tokens{turns}, {} runs",
            load.answer, self.settings.runs,
        )?;
        write!(f, "{:26}", "median (min … max)")?;
        for target in &self.targets {
            write!(f, "  {:>32}", target.label)?;
        }
        writeln!(f, "{}", if points.len() == 2 { "   ratio" } else { "" })?;
        for metric in shown(&points) {
            let of = |point: &Point| point.metrics.get(&metric).cloned();
            let cells = points.iter().map(|point| cell(of(point).as_ref()));
            write_row(f, metric.title(), cells)?;
            if let [a, b] = points[..]
                && let (Some(a), Some(b)) = (of(a), of(b))
            {
                let ratio = ratio(a.median, b.median);
                write!(
                    f,
                    "  {:>6}",
                    ratio.map_or("–".to_owned(), |r| format!("{r:.3}"))
                )?;
            }
            writeln!(f)?;
        }
        let gaps = points.iter().map(|point| match point.gaps {
            Some(gaps) => format!(
                "{:.2} / {:.2} / {:.2}",
                gaps.p50_ms, gaps.p99_ms, gaps.max_ms
            ),
            None => "–".to_owned(),
        });
        write_row(f, "all gaps p50/p99/max, ms", gaps)?;
        writeln!(f)?;
        for (target, point) in self.targets.iter().zip(&points) {
            write_outcomes(f, target, point)?;
        }
        Ok(())
    }
}

/// The usual figures, measured or not, and others that were measured.
fn shown(points: &[&Point]) -> Vec<Metric> {
    let mut metrics = Metric::USUAL.to_vec();
    metrics.extend(points.iter().flat_map(|point| point.metrics.keys()));
    metrics.sort();
    metrics.dedup();
    metrics
}

fn write_row(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    mut cells: impl Iterator<Item = String>,
) -> fmt::Result {
    write!(f, "{title:26}")?;
    cells.try_for_each(|cell| write!(f, "  {cell:>32}"))
}

fn cell(summary: Option<&Summary>) -> String {
    match summary {
        Some(s) => format!("{:.2} ({:.2} … {:.2})", s.median, s.min, s.max),
        None => "–".to_owned(),
    }
}

/// Silent when all was answered as it should be.
fn write_outcomes(f: &mut fmt::Formatter<'_>, of: &TargetReport, point: &Point) -> fmt::Result {
    const SHOWN_FAULTS: usize = 5;
    let label = &of.label;
    if point.outcomes.keys().any(|kind| kind != "answered") {
        let counts = point.outcomes.iter();
        let counts: Vec<String> = counts.map(|(kind, n)| format!("{kind} {n}")).collect();
        writeln!(f, "{label}: {}", counts.join(", "))?;
    }
    if point.cached_tokens > 0 {
        let tokens = point.cached_tokens;
        writeln!(f, "{label}: {tokens} prompt tokens came from a cache")?;
    }
    if point.without_usage > 0 {
        let answers = point.without_usage;
        writeln!(
            f,
            "{label}: {answers} answers came without usage: words and events stand for their tokens"
        )?;
    }
    let mut faults = point.faults.clone();
    faults.sort();
    faults.dedup();
    for fault in faults.iter().take(SHOWN_FAULTS) {
        writeln!(f, "{label}: broken: {fault}")?;
    }
    if faults.len() > SHOWN_FAULTS {
        let more = faults.len() - SHOWN_FAULTS;
        writeln!(f, "{label}: … and {more} other faults")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    #[test]
    fn two_targets_are_shown_side_by_side_with_their_ratio_and_a_dash_for_what_is_absent() {
        let mut both = report(
            "ours",
            &[
                (Metric::Decode, &[110.0]),
                (Metric::FirstToken, &[8.0, 9.0]),
            ],
        );
        let theirs = report(
            "theirs",
            &[(Metric::Decode, &[100.0]), (Metric::FirstToken, &[10.0])],
        );
        both.targets.extend(theirs.targets);
        insta::assert_snapshot!(both.to_string(), @"
        medium, 1 client: prompt 513 tokens, answer 256 tokens, 1 runs
        median (min … max)                                      ours                            theirs   ratio
        first token, ms                           8.50 (8.00 … 9.00)             10.00 (10.00 … 10.00)   0.850
        prompt, tok/s                                              –                                 –
        decode per stream, tok/s            110.00 (110.00 … 110.00)          100.00 (100.00 … 100.00)   1.100
        generated in total, tok/s                                  –                                 –
        gap p50, ms                                                –                                 –
        gap p99, ms                                                –                                 –
        gap max, ms                                                –                                 –
        resident memory, MiB                                       –                                 –
        VRAM, MiB                                                  –                                 –
        all gaps p50/p99/max, ms                                   –                                 –
        ");
    }

    #[test]
    fn faults_are_told_once_each() {
        let mut report = report("ours", &[]);
        let point = &mut report.targets[0].points[0];
        point.outcomes = [("status_500".to_owned(), 2)].into();
        point.faults = vec!["status 500: no".to_owned(); 2];
        assert_eq!(report.to_string().matches("status 500: no").count(), 1);
    }
}
