//! What the picture must show, whatever was measured.

use super::{super::report::tests::report, *};

fn both() -> Report {
    let mut both = report("<ours> & co", &[(Metric::Decode, &[90.0, 100.0, 110.0])]);
    both.targets
        .extend(report("theirs", &[(Metric::Decode, &[50.0])]).targets);
    both
}

#[test]
fn every_server_has_a_bar_and_what_is_missing_a_dash() {
    let svg = svg(&both());
    // In the legend, and for decoding.
    assert_eq!(svg.matches("class=\"s0\"").count(), 2);
    assert_eq!(svg.matches("class=\"whisker\"").count(), 2);
    assert_eq!(svg.matches(">–<").count(), 2, "no first token was measured");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn labels_cannot_break_out_of_their_text() {
    let svg = svg(&both());
    assert!(svg.contains("&lt;ours&gt; &amp; co") && !svg.contains("<ours>"));
}

#[test]
fn a_sweep_has_a_panel_for_the_total_and_a_group_for_each_number_of_clients() {
    let mut report = both();
    for target in &mut report.targets {
        let mut more = target.points[0].clone();
        more.load.concurrency = 8;
        target.points.push(more);
    }
    let svg = svg(&report);
    assert!(svg.contains("generated in total") && svg.contains(">8 clients<"));
    assert_eq!(svg.matches("class=\"whisker\"").count(), 4);
}

#[test]
fn numbers_at_the_axis_have_no_idle_zeros() {
    assert_eq!(
        [0.0, 50.0, 2.5, 0.1 + 0.2].map(tick),
        ["0", "50", "2.5", "0.3"]
    );
}

#[test]
fn lines_of_the_axis_are_round_and_few() {
    for (most, expected) in [
        (0.0, 1.0),
        (7.0, 2.0),
        (100.0, 25.0),
        (1234.0, 500.0),
        (0.3, 0.1),
    ] {
        assert!(
            (step(most) - expected).abs() < 1e-12,
            "{most}: {}",
            step(most)
        );
    }
}
