//! The plan as a table: a row for each use of memory, a column for each device.

use std::{fmt::Write, iter};

use clap::builder::styling::{AnsiColor, Style};

use super::terminal::Terminal;
use crate::{
    engine::fit::{Device, Plan},
    report::size,
};

/// Between columns.
const GAP: usize = 2;

/// What is planned and for which devices, in a few lines.
pub(super) fn head(plan: &Plan, terminal: Terminal) -> String {
    let model = &plan.model;
    let mut lines = vec![
        format!(
            "{}: {}, {} in {} layers{}",
            printable(&model.name),
            printable(&model.architecture),
            size(model.weight_bytes),
            model.layers,
            match model.experts {
                0 => String::new(),
                experts => format!(", {} of {experts} experts a token", model.experts_used),
            }
        ),
        format!(
            "{} tokens of context × {}, keys {}, values {}, flash attention {}",
            plan.context,
            many(plan.parallel, "sequence"),
            plan.kv.k.name(),
            plan.kv.v.name(),
            if plan.flash_attention { "on" } else { "off" }
        ),
        format!(
            "steps of {} tokens, {} at once; {} to generate, {} to read prompts",
            plan.batch,
            plan.ubatch,
            many(plan.threads, "thread"),
            plan.threads_batch
        ),
    ];
    if let Some(draft) = &plan.draft {
        let places: Vec<_> = draft.devices.iter().filter(|it| it.used() > 0).collect();
        let places: Vec<_> = places.iter().map(|it| it.name.as_str()).collect();
        lines.push(format!(
            "guesses by {} on {}: {}, {} tokens of context",
            printable(&draft.model.name),
            places.join(" and "),
            size(draft.model.weight_bytes),
            draft.context,
        ));
    }
    if plan.settings.mtp {
        lines.push("guesses by the model's own prediction layers".to_owned());
    }
    lines.push(String::new());
    let width = plan.devices.iter().map(|it| it.name.len()).max();
    lines.extend(plan.devices.iter().map(|device| {
        format!(
            "{:width$}  {}, {} of {} free",
            device.name,
            printable(&device.description),
            size(device.free),
            size(device.total),
            width = width.unwrap_or(0)
        )
    }));
    lines.iter().fold(String::new(), |text, line| {
        text + &terminal.clip(line) + "\n"
    })
}

/// Rows that are zero everywhere are left out. Wider than the terminal it becomes several tables.
pub(super) fn table(plan: &Plan, terminal: Terminal) -> String {
    let mut columns: Vec<Vec<&Device>> = plan.devices.iter().map(|it| vec![it]).collect();
    if columns.len() > 1 {
        columns.push(plan.devices.iter().collect());
    }
    let rows: Vec<_> = rows(plan)
        .into_iter()
        .filter(|row| row.kind != Kind::Part || columns.iter().any(|it| row.sum(it) != 0))
        .collect();
    let first = rows.iter().map(|row| row.name.chars().count()).max();
    let first = first.unwrap_or(0);
    let cells = rows
        .iter()
        .flat_map(|row| columns.iter().map(|column| row.cell(column)));
    let names = columns.iter().map(|column| name(column).to_owned());
    let width = cells.chain(names).map(|cell| cell.chars().count()).max();
    let width = GAP + width.unwrap_or(0);

    let most = (terminal.columns.saturating_sub(first) / width).max(1);
    let tables: Vec<_> = columns
        .chunks(most)
        .map(|columns| {
            let mut text = line("", first, columns.iter().map(|it| right(name(it), width)));
            for row in &rows {
                if row.kind == Kind::Used {
                    let rule = "─".repeat(width * columns.len() - GAP);
                    text += &line("", first + GAP, iter::once(rule));
                }
                let cells = columns.iter().map(|column| {
                    let cell = row.cell(column);
                    let padded = right(&cell, width);
                    match row.sum(column) {
                        _ if cell.is_empty() => cell,
                        ..0 => terminal.paint(AnsiColor::Red.on_default().bold(), padded),
                        _ if row.kind != Kind::Part => terminal.paint(Style::new().bold(), padded),
                        _ => padded,
                    }
                });
                text += &line(&row.name, first, cells);
            }
            text
        })
        .collect();
    tables.join("\n")
}

struct Row {
    name: String,
    bytes: fn(&Device) -> i128,
    kind: Kind,
    /// Divides the bytes.
    parts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Left out when it is zero everywhere.
    Part,
    /// Always there, and in bold.
    Total,
    /// The total of all totals, below a rule.
    Used,
    /// A total of each device alone: what one has left does not help another.
    Left,
}

impl Row {
    fn sum(&self, devices: &[&Device]) -> i128 {
        let sum: i128 = devices.iter().map(|device| (self.bytes)(device)).sum();
        sum / i128::from(self.parts.max(1))
    }

    fn cell(&self, devices: &[&Device]) -> String {
        let sum = self.sum(devices);
        match size(u64::try_from(sum.unsigned_abs()).unwrap_or(u64::MAX)) {
            _ if self.kind == Kind::Left && devices.len() > 1 => String::new(),
            _ if sum == 0 => "–".to_owned(),
            amount if sum < 0 => format!("−{amount}"),
            amount => amount,
        }
    }
}

fn rows(plan: &Plan) -> Vec<Row> {
    let row = |name: &str, bytes| Row {
        name: name.to_owned(),
        bytes,
        kind: Kind::Part,
        parts: 1,
    };
    let total = |name, bytes| Row {
        kind: Kind::Total,
        ..row(name, bytes)
    };
    let mut rows = vec![
        total("weights", |it| it.weights.total().into()),
        row("  attention", |it| it.weights.attention.into()),
        row("  dense", |it| it.weights.dense.into()),
        row("  experts", |it| it.weights.experts.into()),
        row("  embeddings", |it| it.weights.embeddings.into()),
        row("  output", |it| it.weights.output.into()),
        total("KV cache", |it| it.kv.total().into()),
        row(&format!("  keys {}", plan.kv.k.name()), |it| {
            it.kv.keys.into()
        }),
        row(&format!("  values {}", plan.kv.v.name()), |it| {
            it.kv.values.into()
        }),
        row("  recurrent state", |it| it.kv.state.into()),
    ];
    // Of one sequence the sum says it already.
    if plan.parallel > 1 {
        rows.push(Row {
            parts: plan.parallel,
            ..row("  each sequence", |it| it.kv.total().into())
        });
    }
    rows.extend([
        row("compute buffers", |it| it.compute.into()),
        row("projector", |it| it.projector.into()),
        row("adapters", |it| it.adapters.into()),
        row("draft", |it| it.draft.into()),
        Row {
            kind: Kind::Used,
            ..total("used", |it| it.used().into())
        },
        row("margin", |it| it.margin.into()),
        row("free before", |it| it.free.into()),
        Row {
            kind: Kind::Left,
            ..total("left free", |it| it.left().into())
        },
    ]);
    rows
}

fn name<'a>(column: &[&'a Device]) -> &'a str {
    match column {
        [device] => &device.name,
        _ => "sum",
    }
}

fn line(name: &str, width: usize, cells: impl Iterator<Item = String>) -> String {
    let mut text = format!("{name:width$}");
    cells.for_each(|cell| text += &cell);
    let _ = writeln!(text);
    text
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

fn many(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Names come from files and drivers; a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
