//! The plan as a picture for terminals: a cell a layer, in the row of the device that computes it.

use std::fmt::Write;

use clap::builder::styling::{AnsiColor, Style};

use super::terminal::Terminal;
use crate::{
    engine::fit::{Layer, Place, Plan},
    report::sentences,
};

/// Layers between two gaps, so that they can be counted.
const GROUP: usize = 10;
/// What the output's column is called.
const OUT: &str = "out";

/// Rows of cells, what the cells mean, and the same in words.
pub(super) fn picture(plan: &Plan, terminal: Terminal) -> String {
    let margin = 2 + plan
        .devices
        .iter()
        .map(|it| it.name.len())
        .max()
        .unwrap_or(0);
    // The output, which has no number, follows the last row.
    let (numbered, output): (Vec<_>, Vec<_>) = plan
        .layers
        .iter()
        .partition(|layer| layer.name.parse::<u32>().is_ok());
    let room = terminal.columns.saturating_sub(margin + 1 + OUT.len());
    let most = GROUP * (room / (GROUP + 1)).max(1);
    let mut text = String::new();
    let mut blocks: Vec<&[&Layer]> = numbered.chunks(most).collect();
    if blocks.is_empty() {
        blocks.push(&[]);
    }
    for (at, block) in blocks.iter().enumerate() {
        let output = if at + 1 == blocks.len() {
            &output[..]
        } else {
            &[]
        };
        text += &rows(plan, block, output, margin, terminal);
        text.push('\n');
    }
    text += &legend(plan, terminal);
    text.push('\n');
    for sentence in sentences(plan) {
        text += &terminal.wrap(&sentence);
        text.push('\n');
    }
    text
}

/// The numbers, and below them a row for each device that computes one of these layers.
fn rows(
    plan: &Plan,
    block: &[&Layer],
    output: &[&Layer],
    margin: usize,
    terminal: Terminal,
) -> String {
    let mut numbers = " ".repeat(margin);
    let mut cells: Vec<(usize, &Layer)> = Vec::new();
    for (group, layers) in block.chunks(GROUP).enumerate() {
        let column = margin + group * (GROUP + 1);
        numbers = format!("{numbers:column$}{}", layers[0].name);
        cells.extend((column..).zip(layers.iter().copied()));
    }
    if !output.is_empty() {
        let after = cells.last().map_or(margin, |(column, _)| column + 2);
        let column = after.max(numbers.chars().count() + 1);
        numbers = format!("{numbers:column$}{OUT}");
        cells.extend((column..).zip(output.iter().copied()));
    }
    let mut text = numbers + "\n";
    for device in &plan.devices {
        let own: Vec<_> = cells
            .iter()
            .filter(|(_, it)| it.device == device.name)
            .collect();
        if own.is_empty() {
            continue;
        }
        let _ = write!(text, "{:margin$}", device.name);
        let mut column = margin;
        for (at, layer) in own {
            text += &" ".repeat(at - column);
            text += &terminal.paint(style(layer.place), glyph(layer.place));
            column = at + 1;
        }
        text.push('\n');
    }
    text
}

/// Only what the picture shows.
fn legend(plan: &Plan, terminal: Terminal) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for place in PLACES {
        if plan.layers.iter().all(|layer| layer.place != place) {
            continue;
        }
        let words = words(place);
        let length = 2 + words.chars().count();
        if column > 0 && column + 3 + length > terminal.columns {
            lines.push('\n');
            column = 0;
        } else if column > 0 {
            lines.push_str("   ");
            column += 3;
        }
        let cell = terminal.paint(style(place), glyph(place));
        let _ = write!(lines, "{cell} {words}");
        column += length;
    }
    lines + "\n"
}

/// From all on a GPU to nothing there.
pub(super) const PLACES: [Place; 5] = [
    Place::Gpu,
    Place::SomeExpertsOnCpu,
    Place::ExpertsOnCpu,
    Place::Mixed,
    Place::Cpu,
];

pub(super) fn words(place: Place) -> &'static str {
    match place {
        Place::Gpu => "on GPU",
        Place::SomeExpertsOnCpu => "some experts on CPU",
        Place::ExpertsOnCpu => "experts on CPU",
        Place::Mixed => "other tensors on CPU",
        Place::Cpu => "on CPU",
    }
}

/// Told apart without colour too.
fn glyph(place: Place) -> char {
    match place {
        Place::Gpu => '█',
        Place::SomeExpertsOnCpu => '▓',
        Place::ExpertsOnCpu => '▒',
        Place::Mixed => '▚',
        Place::Cpu => '·',
    }
}

fn style(place: Place) -> Style {
    match place {
        Place::Gpu => AnsiColor::Green,
        Place::SomeExpertsOnCpu => AnsiColor::BrightYellow,
        Place::ExpertsOnCpu => AnsiColor::Yellow,
        Place::Mixed => AnsiColor::Magenta,
        Place::Cpu => AnsiColor::Blue,
    }
    .on_default()
}
