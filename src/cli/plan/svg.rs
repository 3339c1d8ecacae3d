//! The plan as a picture for documents: a bar of memory for each device and a cell for each layer.

mod draw;

use std::fmt::Write;

use self::draw::{LINE, Legend, WIDTH, text};
use super::picture::{PLACES, words};
use crate::{
    cli::svg::escape,
    engine::fit::{Device, Layer, Place, Plan},
    report::{sentences, size},
};

/// Outer margin, in pixels like all lengths here.
const EDGE: f64 = 24.0;
const BAR: f64 = 30.0;
const CELL: f64 = 14.0;
const LAYERS_A_ROW: usize = 40;
/// A gap after as many layers, so that they can be counted.
const GROUP: usize = 10;
/// Width of the devices' names beside their layers.
const NAMES: f64 = 84.0;

/// Self-contained, and readable on a light and on a dark page.
pub(super) fn svg(plan: &Plan) -> String {
    let mut body = String::new();
    let mut y = EDGE + 16.0;
    text(&mut body, EDGE, y, "title", &plan.model.name);
    y += 22.0;
    text(&mut body, EDGE, y, "quiet", &subtitle(plan));
    y += 30.0;
    for device in &plan.devices {
        y = memory(&mut body, y, device);
    }
    y = layers(&mut body, y, plan);
    for sentence in sentences(plan) {
        for line in draw::wrap(&sentence) {
            text(&mut body, EDGE, y, "", &line);
            y += LINE;
        }
    }
    let height = y + EDGE - LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{}</title>\n<style>{}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n{body}</svg>\n",
        escape(&format!("Placement of {}", plan.model.name)),
        draw::STYLE,
    )
}

fn subtitle(plan: &Plan) -> String {
    format!(
        "{} · {} tokens × {} · KV cache {}/{} · steps of {}, {} at once",
        size(plan.model.weight_bytes),
        plan.context,
        plan.parallel,
        plan.kv.k.name(),
        plan.kv.v.name(),
        plan.batch,
        plan.ubatch,
    )
}

/// What takes memory on a device, in the order of the bar: class, name, bytes.
fn parts(device: &Device) -> Vec<(&'static str, &'static str, u64)> {
    let weights = &device.weights;
    let left = u64::try_from(device.left()).unwrap_or(0);
    let mut parts = vec![
        ("attention", "attention", weights.attention),
        ("dense", "dense", weights.dense),
        ("experts", "experts", weights.experts),
        ("embeddings", "embeddings", weights.embeddings),
        ("output", "output", weights.output),
        ("kv", "KV cache", device.kv.total()),
        ("compute", "compute buffers", device.compute),
        ("projector", "projector", device.projector),
        ("adapters", "adapters", device.adapters),
        ("draft", "draft", device.draft),
        ("margin", "margin", device.margin),
        ("left", "left free", left),
        (
            "others",
            "in use by others",
            device.total.saturating_sub(device.free),
        ),
    ];
    parts.retain(|(_, _, bytes)| *bytes > 0);
    parts
}

/// A heading, the bar, and what its colours mean; returns where the next thing may begin.
fn memory(body: &mut String, mut y: f64, device: &Device) -> f64 {
    let _ = writeln!(
        body,
        "<text x=\"{EDGE}\" y=\"{y:.1}\"><tspan class=\"name\">{}</tspan><tspan dx=\"8\" class=\"quiet\">{}</tspan></text>",
        escape(&device.name),
        escape(&device.description)
    );
    let free = format!("{} of {} free", size(device.free), size(device.total));
    text(body, WIDTH - EDGE, y, "quiet end", &free);
    y += 10.0;

    let parts = parts(device);
    let bytes: u64 = parts.iter().map(|(_, _, bytes)| bytes).sum();
    // A plan that does not fit is longer than its device.
    let scale = (WIDTH - 2.0 * EDGE) / bytes.max(device.total).max(1) as f64;
    let mut x = EDGE;
    for (class, name, bytes) in &parts {
        let width = *bytes as f64 * scale;
        let label = format!("{name} {}", size(*bytes));
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\"><title>{label}</title></rect>"
        );
        if draw::length(&label) + 12.0 < width {
            let ink = if *class == "left" { "" } else { "ink" };
            text(body, x + 6.0, y + BAR / 2.0 + 4.0, ink, &label);
        }
        x += width;
    }
    if device.left() < 0 {
        let end = EDGE + device.total as f64 * scale;
        let _ = writeln!(
            body,
            "<path class=\"missing\" d=\"M{end:.1} {:.1}v{:.1}\"/>",
            y - 4.0,
            BAR + 8.0
        );
    }
    y += BAR + LINE;

    let mut legend = Legend::new(EDGE, y);
    for (class, name, bytes) in &parts {
        legend.entry(body, &format!("{name} {}", size(*bytes)), |body, x, y| {
            let _ = writeln!(
                body,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"11\" height=\"11\"/>"
            );
        });
    }
    if device.left() < 0 {
        let missing = format!("{} missing", size(device.left().unsigned_abs()));
        legend.entry(body, &missing, |body, x, y| {
            let (x, y) = (x + 5.5, y - 2.0);
            let _ = writeln!(body, "<path class=\"missing\" d=\"M{x:.1} {y:.1}v15\"/>");
        });
    }
    legend.bottom() + 20.0
}

/// Rows of cells under the layers' numbers, each in the row of the device that computes it.
fn layers(body: &mut String, mut y: f64, plan: &Plan) -> f64 {
    text(body, EDGE, y, "name", "Layers");
    y += LINE;
    let (numbered, output): (Vec<_>, Vec<_>) = plan
        .layers
        .iter()
        .partition(|layer| layer.name.parse::<u32>().is_ok());
    let mut rows: Vec<Vec<&Layer>> = numbered.chunks(LAYERS_A_ROW).map(<[_]>::to_vec).collect();
    // The output, which has no number, follows the last row.
    match rows.last_mut() {
        Some(last) => last.extend(output),
        None => rows.push(output),
    }
    for row in rows {
        y = cells(body, y, plan, &row);
    }
    let mut legend = Legend::new(EDGE, y);
    for shown in PLACES {
        if plan.layers.iter().any(|layer| layer.place == shown) {
            legend.entry(body, words(shown), |body, x, y| {
                square(body, x, y - 1.5, shown);
            });
        }
    }
    legend.bottom() + LINE
}

fn cells(body: &mut String, mut y: f64, plan: &Plan, row: &[&Layer]) -> f64 {
    let mut x = EDGE + NAMES;
    let mut placed = Vec::new();
    for (at, layer) in row.iter().enumerate() {
        let unnumbered = layer.name.parse::<u32>().is_err();
        if at > 0 && (at % GROUP == 0 || unnumbered) {
            x += 6.0;
        }
        if at % GROUP == 0 || unnumbered {
            text(body, x, y, "quiet", &layer.name);
        }
        placed.push((x, *layer));
        x += CELL + 2.0;
    }
    y += 6.0;
    for device in &plan.devices {
        let own = placed
            .iter()
            .filter(|(_, layer)| layer.device == device.name);
        if own.clone().count() == 0 {
            continue;
        }
        text(body, EDGE, y + CELL - 3.0, "", &device.name);
        for (x, layer) in own {
            cell(body, *x, y, layer);
        }
        y += CELL + 4.0;
    }
    y + LINE
}

fn cell(body: &mut String, x: f64, y: f64, layer: &Layer) {
    let label = format!("{}: {}, {}", layer.name, layer.device, words(layer.place));
    let _ = writeln!(body, "<g><title>{}</title>", escape(&label));
    square(body, x, y, layer.place);
    body.push_str("</g>\n");
}

/// A square filled from below by as much as lies on the CPU: read without colour too.
fn square(body: &mut String, x: f64, y: f64, place: Place) {
    let (below, class) = match place {
        Place::Gpu => (0.0, ""),
        Place::SomeExpertsOnCpu => (CELL / 3.0, "away"),
        Place::ExpertsOnCpu => (CELL * 2.0 / 3.0, "away"),
        Place::Mixed => (CELL / 2.0, "mixed"),
        Place::Cpu => (CELL, "cpu"),
    };
    let _ = writeln!(
        body,
        "<rect class=\"gpu\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{CELL}\" height=\"{CELL}\"/>"
    );
    if below > 0.0 {
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{CELL}\" height=\"{below:.1}\"/>",
            y + CELL - below
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{draw::tests::well_formed, *};
    use crate::report::examples;

    #[test]
    fn a_laptop_is_drawn_with_one_bar() {
        insta::assert_snapshot!(svg(&examples::laptop()));
    }

    #[test]
    fn a_small_card_is_drawn_with_its_partial_layer() {
        insta::assert_snapshot!(svg(&examples::experts_on_the_cpu()));
    }

    #[test]
    fn two_gpus_are_drawn_with_what_is_missing() {
        insta::assert_snapshot!(svg(&examples::two_gpus()));
    }

    #[test]
    fn what_is_drawn_is_well_formed_whatever_was_planned() {
        for plan in [
            examples::laptop(),
            examples::experts_on_the_cpu(),
            examples::two_gpus(),
            examples::by_hand(),
        ] {
            well_formed(&svg(&plan)).unwrap();
        }
    }

    #[test]
    fn what_overflows_a_device_stays_inside_the_page() {
        let mut plan = examples::laptop();
        plan.devices[0].compute = 40 << 30;
        let drawn = svg(&plan);
        let widths = drawn.split("width=\"").skip(1);
        let widths = widths.map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
        assert!(widths.clone().count() > 10);
        assert!(widths.into_iter().all(|width| width <= WIDTH));
        assert!(drawn.contains(" missing</text>"));
    }

    proptest! {
        #[test]
        fn no_name_breaks_the_document(name in ".*", description in ".*") {
            let mut plan = examples::laptop();
            plan.model.name = name;
            plan.devices[0].description = description;
            prop_assert_eq!(well_formed(&svg(&plan)), Ok(()));
        }
    }
}
