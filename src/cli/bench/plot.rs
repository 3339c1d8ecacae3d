//! A report as SVG: a row of panels for each workload, a bar with whiskers for each server and number of clients.

use std::fmt::{self, Write as _};

use super::{
    metric::{Better, Metric},
    report::{Point, Report, TargetReport},
    stats::Summary,
};
use crate::cli::svg::escape;

/// Of one panel with everything around it, in pixels.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 230.0;
/// From the panel's edges to its axes.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 36.0;
/// Above the panels.
const HEAD: f64 = 60.0;
/// Narrower bars have no room for a number.
const LABELLED_BAR: f64 = 20.0;
const COLOURS: usize = 6;

/// The browser's light or dark scheme decides; without one it is light.
const STYLE: &str = "
  svg { --back: #ffffff; --ink: #1f2328; --faint: #59636e; --grid: #d1d9e0;
    --s0: #0969da; --s1: #d1731a; --s2: #1a7f37; --s3: #8250df; --s4: #bf3989; --s5: #6e7781; }
  @media (prefers-color-scheme: dark) {
    svg { --back: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #3d444d;
      --s0: #4493f8; --s1: #f0883e; --s2: #3fb950; --s3: #ab7df8; --s4: #f778ba; --s5: #9198a1; } }
  text { font: 12px system-ui, sans-serif; fill: var(--ink); }
  .title { font-weight: 600; }
  .faint { fill: var(--faint); font-size: 11px; }
  .value { font-size: 10px; }
  .grid { stroke: var(--grid); }
  .whisker { stroke: var(--ink); stroke-width: 1.5; }
  .back { fill: var(--back); }
  .s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); }
  .s3 { fill: var(--s3); } .s4 { fill: var(--s4); } .s5 { fill: var(--s5); }
";

/// The whole picture.
pub(super) fn svg(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("writing to a string does not fail");
    text
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let rows = names(report);
    let columns = columns(report);
    let width = WIDTH * columns.len() as f64;
    let height = HEAD + HEIGHT * rows.len() as f64;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{width}\" height=\"{height}\"/>"
    )?;
    let tool = &report.tool;
    let runs = report.settings.runs;
    let head = format!("{tool}: median of {runs} runs, whiskers from least to most");
    writeln!(out, "<text x=\"12\" y=\"22\">{}</text>", escape(&head))?;
    legend(out, &report.targets)?;
    for (row, name) in rows.iter().enumerate() {
        for (column, &metric) in columns.iter().enumerate() {
            let (x, y) = (WIDTH * column as f64, HEAD + HEIGHT * row as f64);
            writeln!(out, "<g transform=\"translate({x} {y})\">")?;
            Panel::of(report, name, metric).write(out)?;
            writeln!(out, "</g>")?;
        }
    }
    writeln!(out, "</svg>")
}

fn legend(out: &mut String, targets: &[TargetReport]) -> fmt::Result {
    // About the width of a letter.
    const LETTER: f64 = 7.0;
    let mut x = 12.0;
    for (index, target) in targets.iter().enumerate() {
        let class = index % COLOURS;
        let label = escape(&target.label);
        let text_x = x + 16.0;
        writeln!(
            out,
            "<rect class=\"s{class}\" x=\"{x:.0}\" y=\"35\" width=\"11\" height=\"11\"/>\
             <text x=\"{text_x:.0}\" y=\"45\">{label}</text>"
        )?;
        x = text_x + LETTER * target.label.chars().count() as f64 + 18.0;
    }
    Ok(())
}

/// The loads of a report without their numbers of clients, in order.
fn names(report: &Report) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for point in report.targets.iter().flat_map(|target| &target.points) {
        let name = point.load.name();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The total says nothing new while there is one client.
fn columns(report: &Report) -> Vec<Metric> {
    let mut points = report.targets.iter().flat_map(|target| &target.points);
    let mut columns = vec![Metric::FirstToken, Metric::Decode];
    if points.any(|point| point.load.concurrency > 1) {
        columns.push(Metric::Total);
    }
    columns
}

/// One figure of one workload.
struct Panel<'a> {
    name: &'a str,
    metric: Metric,
    /// For each number of clients, the summary of each server.
    groups: Vec<(u32, Vec<Option<&'a Summary>>)>,
    /// The upper end of the axis, and the distance of its lines.
    top: f64,
    step: f64,
}

impl<'a> Panel<'a> {
    fn of(report: &'a Report, name: &'a str, metric: Metric) -> Self {
        let here = |point: &&Point| point.load.name() == name;
        let all = report.targets.iter().flat_map(|target| &target.points);
        let mut clients: Vec<u32> = all.filter(here).map(|p| p.load.concurrency).collect();
        clients.sort_unstable();
        clients.dedup();
        let find = |target: &'a TargetReport, clients: u32| {
            let mut points = target.points.iter().filter(here);
            let point = points.find(|point| point.load.concurrency == clients)?;
            point.metrics.get(&metric)
        };
        let group = |clients| {
            let targets = report.targets.iter();
            (
                clients,
                targets.map(|target| find(target, clients)).collect(),
            )
        };
        let groups: Vec<(u32, Vec<Option<&Summary>>)> = clients.into_iter().map(group).collect();
        let summaries = groups.iter().flat_map(|(_, group)| group.iter().flatten());
        let most = summaries.map(|summary| summary.max).fold(0.0, f64::max);
        let step = step(most);
        Self {
            name,
            metric,
            groups,
            top: (most / step).ceil().max(1.0) * step,
            step,
        }
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let better = match self.metric.better() {
            Better::More => "more is better",
            Better::Less => "less is better",
        };
        writeln!(
            out,
            "<text class=\"title\" x=\"{LEFT}\" y=\"18\">{}: {}</text>\
             <text class=\"faint\" x=\"{LEFT}\" y=\"32\">{better}</text>",
            escape(self.name),
            self.metric.title()
        )?;
        let mut value = 0.0;
        while value <= self.top + self.step / 2.0 {
            let (y, text_y, end, text_x) = (
                self.y(value),
                self.y(value) + 4.0,
                WIDTH - RIGHT,
                LEFT - 6.0,
            );
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"faint\" text-anchor=\"end\" x=\"{text_x}\" y=\"{text_y:.1}\">{}</text>",
                tick(value)
            )?;
            value += self.step;
        }
        let wide = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        for (index, (clients, bars)) in self.groups.iter().enumerate() {
            let x = LEFT + wide * index as f64;
            let s = if *clients == 1 { "" } else { "s" };
            let word = if self.groups.len() <= 4 {
                format!(" client{s}")
            } else {
                String::new()
            };
            let (middle, y) = (x + wide / 2.0, HEIGHT - BOTTOM + 16.0);
            writeln!(
                out,
                "<text class=\"faint\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{y}\">{clients}{word}</text>"
            )?;
            // A fifth of the room stays between groups.
            let bar = (wide * 0.8 / bars.len().max(1) as f64).min(60.0);
            let begin = middle - bar * bars.len() as f64 / 2.0;
            for (server, summary) in bars.iter().enumerate() {
                self.bar(out, begin + bar * server as f64, bar, server, *summary)?;
            }
        }
        Ok(())
    }

    fn bar(
        &self,
        out: &mut String,
        x: f64,
        wide: f64,
        server: usize,
        summary: Option<&Summary>,
    ) -> fmt::Result {
        let middle = x + wide / 2.0;
        let label = |y: f64, text: &str| {
            format!(
                "<text class=\"value\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{y:.1}\">{text}</text>"
            )
        };
        let Some(summary) = summary else {
            return writeln!(out, "{}", label(self.y(0.0) - 4.0, "–"));
        };
        let (y, foot) = (self.y(summary.median), self.y(0.0));
        let (high, low) = (self.y(summary.max), self.y(summary.min));
        let (tall, class, inner) = (foot - y, server % COLOURS, wide * 0.86);
        let (left, cap) = (x + wide * 0.07, (wide * 0.15).min(5.0));
        let (cap_left, cap_right) = (middle - cap, middle + cap);
        write!(
            out,
            "<rect class=\"s{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{inner:.1}\" height=\"{tall:.1}\"/>\
             <path class=\"whisker\" d=\"M{middle:.1} {low:.1}V{high:.1}M{cap_left:.1} {high:.1}H{cap_right:.1}\
             M{cap_left:.1} {low:.1}H{cap_right:.1}\"/>"
        )?;
        if wide >= LABELLED_BAR {
            out.push_str(&label(high - 4.0, &number(summary.median)));
        }
        writeln!(out)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.top).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    }
}

/// A round distance of lines: about four of them reach `most`.
fn step(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let rough = most / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 2.5, 5.0, 10.0];
    let factor = round.into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// Three digits are what a measurement is worth.
fn number(value: f64) -> String {
    match value {
        v if v == 0.0 || v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Without the zeros that a sum of steps has behind its point.
fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
