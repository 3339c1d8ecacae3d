//! What counts as worse, and which reports are not compared at all.

use super::{super::report::tests::report, *};

fn one(metrics: &[(Metric, &[f64])]) -> One {
    One::choose(Path::new("a.json"), report("server", metrics), None).unwrap()
}

/// Figures of B worse than 5 % allows.
fn worse(metric: Metric, a: &[f64], b: &[f64]) -> usize {
    let (a, b) = (one(&[(metric, a)]), one(&[(metric, b)]));
    Comparison::of(&a, &b).unwrap().worse(0.05)
}

#[test]
fn slower_decoding_and_longer_waiting_are_both_worse() {
    assert_eq!(worse(Metric::Decode, &[100.0], &[90.0]), 1);
    assert_eq!(worse(Metric::Decode, &[100.0], &[110.0]), 0);
    assert_eq!(worse(Metric::FirstToken, &[10.0], &[11.0]), 1);
    assert_eq!(worse(Metric::FirstToken, &[10.0], &[9.0]), 0);
    assert_eq!(worse(Metric::Resident, &[1000.0], &[1100.0]), 1);
}

#[test]
fn exactly_as_much_as_allowed_is_allowed() {
    assert_eq!(worse(Metric::Decode, &[100.0], &[95.0]), 0);
    assert_eq!(worse(Metric::Decode, &[100.0], &[94.9]), 1);
}

#[test]
fn a_plainly_worse_median_is_worse_though_each_side_has_an_outlier() {
    let a = [100.0, 101.0, 99.0, 100.0, 60.0];
    let b = [80.0, 81.0, 79.0, 130.0, 80.0];
    assert_eq!(worse(Metric::Decode, &a, &b[..3]), 1);
    assert_eq!(worse(Metric::Decode, &a[..4], &b), 1);
}

#[test]
fn a_worse_median_inside_the_spread_is_not_worse() {
    let a = [80.0, 90.0, 100.0, 110.0, 120.0];
    let b = [75.0, 85.0, 93.0, 108.0, 118.0];
    assert_eq!(worse(Metric::Decode, &a, &b), 0);
}

#[test]
fn zeros_and_microseconds_are_neither_divided_by_nor_worse() {
    assert_eq!(worse(Metric::GapMedian, &[0.0, 0.0], &[0.003, 0.004]), 0);
    assert_eq!(worse(Metric::GapMedian, &[0.0], &[0.0]), 0);
    assert_eq!(worse(Metric::Decode, &[0.0], &[0.0]), 0);
    assert_eq!(worse(Metric::GapMedian, &[0.0], &[5.0]), 1);
    let (a, b) = (
        one(&[(Metric::GapMedian, &[0.0])]),
        one(&[(Metric::GapMedian, &[5.0])]),
    );
    let table = Comparison::of(&a, &b).unwrap().table(None);
    assert!(!table.contains("NaN") && !table.contains("inf"), "{table}");
    assert!(table.trim_end().ends_with('–'), "{table}");
}

#[test]
fn a_speed_that_is_gone_is_worse_but_memory_that_nobody_read_is_not() {
    let a = one(&[(Metric::Decode, &[100.0]), (Metric::Vram, &[900.0])]);
    let count = |b: &[(Metric, &[f64])]| Comparison::of(&a, &one(b)).unwrap().worse(0.05);
    assert_eq!(count(&[(Metric::Decode, &[100.0])]), 0);
    assert_eq!(count(&[(Metric::Vram, &[900.0])]), 1);
}

#[test]
fn more_broken_requests_are_worse_however_fast_the_others_were() {
    let a = one(&[(Metric::Decode, &[100.0])]);
    let mut b = one(&[(Metric::Decode, &[200.0])]);
    let outcomes = &mut b.target.points[0].outcomes;
    outcomes.insert("status_500".to_owned(), 1);
    let comparison = Comparison::of(&a, &b).unwrap();
    assert_eq!(comparison.worse(0.05), 1);
    let table = comparison.table(Some(0.05));
    assert!(table.contains("broken requests: A 0, B 1"), "{table}");
}

#[test]
fn other_loads_and_endpoints_are_refused_by_name() {
    let a = one(&[(Metric::Decode, &[1.0])]);
    let refusal = |change: fn(&mut One)| {
        let mut b = a.clone();
        change(&mut b);
        match Comparison::of(&a, &b) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("compared"),
        }
    };
    insta::assert_snapshot!(refusal(|b| b.target.points[0].load.concurrency = 8), @"the reports cannot be compared: only A measured medium, 1 client (prompts [512], answers 256, turns 1), and only B measured medium, 8 clients, 1 requests (prompts [512], answers 256, turns 1)");
    insta::assert_snapshot!(refusal(|b| b.target.points.clear()), @"the reports cannot be compared: only A measured medium, 1 client (prompts [512], answers 256, turns 1)");
    let chat = super::super::request::Endpoint::Chat;
    assert!(
        refusal(|b| b.settings.endpoint = super::super::request::Endpoint::Chat)
            .contains(&format!("{chat:?}"))
    );
}

#[test]
fn of_a_report_with_several_servers_one_must_be_named() {
    let mut both = report("ours", &[]);
    both.targets.extend(report("theirs", &[]).targets);
    let choose = |label| One::choose(Path::new("speed.json"), both.clone(), label);
    assert_eq!(choose(Some("theirs")).unwrap().target.label, "theirs");
    for label in [None, Some("others")] {
        let error = choose(label).unwrap_err().to_string();
        assert!(error.contains("ours, theirs"), "{error}");
    }
    let name = Path::new("speed.json#theirs");
    assert_eq!(split(name), (Path::new("speed.json"), Some("theirs")));
}

#[test]
fn percentages_are_read_as_shares() {
    assert_eq!(percent("5%"), Ok(0.05));
    assert_eq!(percent("0.05"), Ok(0.05));
    assert!(percent("-1%").is_err() && percent("much").is_err());
}

#[test]
fn ratios_stand_with_their_spread() {
    let a = one(&[
        (Metric::Decode, &[100.0, 102.0, 98.0]),
        (Metric::Vram, &[512.0]),
    ]);
    let b = one(&[(Metric::Decode, &[90.0, 91.0, 89.0])]);
    let table = Comparison::of(&a, &b).unwrap().table(Some(0.05));
    insta::assert_snapshot!(table, @"
    A: server (m), B: server (m)

    medium, 1 client                             A             B     B/A
      decode per stream, tok/s              100.00         90.00   0.900  (0.890 … 0.910)  worse than allowed
      VRAM, MiB                             512.00             –       –
    ");
}
