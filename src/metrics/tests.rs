//! Names and words as the documents, the dashboard and the alerts have them.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
};

use serde_json::Value;

use super::*;
use crate::{
    engine::{self, Tuning, fake::Fake},
    gpu::{Clocks, Ecc, Memory, Pcie, Xid},
};

const DOCUMENT: &str = include_str!("../../docs/observability.md");
const DASHBOARD: &str = include_str!("../../contrib/grafana/llm-server.json");
const ALERTS: &str = include_str!("../../contrib/prometheus/alerts.yml");

/// As a row of the document: type, labels and meaning.
type Described = BTreeMap<String, (String, String, String)>;

fn reading() -> Reading {
    Reading {
        uuid: Some("GPU-1".to_owned()),
        name: Some("NVIDIA \"X\"".to_owned()),
        pci_bus_id: Some("00000000:0A:00.0".to_owned()),
        memory: Some(Memory {
            total_bytes: 1 << 34,
            used_bytes: 1 << 33,
            free_bytes: 1 << 33,
        }),
        utilisation_percent: Some(97),
        memory_utilisation_percent: Some(41),
        temperature_celsius: Some(52),
        power_watts: Some(412.5),
        power_limit_watts: Some(700.0),
        pcie: Pcie {
            generation: Some(4),
            generation_max: Some(5),
            width: Some(8),
            width_max: Some(16),
        },
        clocks: Clocks {
            sm_mhz: Some(1980),
            sm_max_mhz: Some(1980),
            memory_mhz: Some(3201),
            memory_max_mhz: Some(3201),
        },
        throttled_by: Some(vec!["power_cap"]),
        ecc: Ecc {
            corrected: Some(3),
            uncorrected: Some(0),
        },
        xid: Some(Xid {
            last: Some(79),
            count: 1,
        }),
        error: None,
    }
}

fn sight(stage: &'static str, gpus: Option<Vec<Reading>>) -> Sight {
    Sight {
        stage,
        loaded: 1.0,
        gpus,
    }
}

/// The text of a server that has seen a request and has two GPUs, one of which fell off the bus.
fn everything() -> String {
    let (engine, _thread) = engine::start(
        Tuning {
            cache_bytes: 1 << 20,
            ..Tuning::default()
        },
        || Ok::<_, Infallible>(Fake::new(2, 256)),
    )
    .unwrap();
    let metrics = Metrics::new("org/model");
    metrics.serve(|| Served {
        fingerprint: "fp_1".to_owned(),
        engine: "b1".to_owned(),
        watch: engine.watch(),
        capacity_tokens: Some(512),
        gpus: Gpus::default(),
    });
    metrics.ended("/v1/chat/completions", NONE, "stop");
    metrics.waited(Duration::from_millis(20));
    let lost = Reading {
        error: Some("GPU is lost".to_owned()),
        ..Reading::default()
    };
    metrics.text(&sight("ready", Some(vec![reading(), lost])))
}

/// What the text says of each family; labels without `le`.
fn said(text: &str) -> Described {
    let mut families = Described::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            families.entry(name.to_owned()).or_default().2 = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((name, labels)) = line.split_once('{') {
            let labels = labels.rsplit_once("} ").unwrap().0;
            let mut names: Vec<_> = labels
                .split("\",")
                .map(|label| label.split_once('=').unwrap().0)
                .filter(|name| *name != "le")
                .collect();
            names.sort_unstable();
            if let Some(family) = families.get_mut(name) {
                family.1 = names.join(", ");
            }
        }
    }
    families
}

/// The rows `| name | type | unit | labels | meaning |` of the document.
fn documented() -> Described {
    let rows = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `llm_server_") || line.starts_with("| `llamacpp:"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, _unit, labels, meaning] = cells[..] else {
            panic!("five cells are expected: {row}");
        };
        let mut labels: Vec<_> = labels
            .split(", ")
            .map(|label| label.trim_matches('`'))
            .filter(|label| !label.is_empty())
            .collect();
        labels.sort_unstable();
        let words = (kind.to_owned(), labels.join(", "), meaning.to_owned());
        (name.trim_matches('`').to_owned(), words)
    })
    .collect()
}

#[test]
fn the_document_lists_every_metric_in_the_words_of_the_metric() {
    let (said, documented) = (said(&everything()), documented());
    for (name, words) in &said {
        assert_eq!(documented.get(name), Some(words), "{name}");
    }
    let only_documented: Vec<_> = documented
        .keys()
        .filter(|name| !said.contains_key(*name))
        .collect();
    assert_eq!(only_documented, Vec::<&String>::new());
}

/// What is wrong with the names and labels that an expression uses.
fn faults(expression: &str, said: &Described) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut faults = Vec::new();
    let mut known = vec!["instance", "job", "le"];
    for (at, _) in expression.match_indices("llm_server_") {
        let end = expression[at..].find(|c| !is_name(c));
        let (word, rest) = expression[at..].split_at(end.unwrap_or(expression.len() - at));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| word.strip_suffix(suffix))
            .filter(|family| said.get(*family).is_some_and(|it| it.0 == "histogram"));
        let Some((kind, labels, _)) = said.get(family.unwrap_or(word)) else {
            faults.push(format!("{word} is not there"));
            continue;
        };
        let of_counter = ["rate(", "increase(", "resets("];
        let before = of_counter.iter().any(|it| expression[..at].ends_with(it));
        if (kind != "gauge") != before {
            faults.push(format!("{word} is a {kind}"));
        }
        let labels: Vec<_> = labels.split(", ").collect();
        let selector = rest.strip_prefix('{').and_then(|it| it.split_once('}'));
        for matcher in selector.map_or("", |it| it.0).split(", ") {
            let label = matcher.split(['=', '!']).next().unwrap_or_default();
            if !label.is_empty() && !known.contains(&label) && !labels.contains(&label) {
                faults.push(format!("{word} has no label {label}"));
            }
        }
        known.extend(labels);
    }
    for (_, list) in expression
        .match_indices(" by (")
        .map(|(at, by)| (at, &expression[at + by.len()..]))
    {
        for label in list.split(')').next().unwrap_or_default().split(", ") {
            if !known.contains(&label) {
                faults.push(format!("nothing has the label {label}"));
            }
        }
    }
    faults
}

#[test]
fn the_alerts_ask_for_nothing_that_is_not_there() {
    let said = said(&everything());
    let expressions: Vec<_> = ALERTS
        .split("- alert: ")
        .skip(1)
        .map(|alert| {
            let expression = alert.split_once("expr:").unwrap().1;
            let end = expression.find("\n        for:");
            let end = end.or_else(|| expression.find("\n        labels:"));
            &expression[..end.unwrap()]
        })
        .collect();
    assert!(expressions.len() > 10);
    for expression in expressions {
        assert_eq!(faults(expression, &said), [""; 0], "{expression}");
    }
    let made_up = faults(
        "rate(llm_server_stage{nowhere=\"x\"}[5m]) + llm_server_speed",
        &said,
    );
    assert_eq!(made_up.len(), 3, "{made_up:?}");
}

#[test]
fn every_panel_of_the_dashboard_has_a_place_and_asks_for_what_is_there() {
    let said = said(&everything());
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert_eq!(dashboard["uid"], "llm-server");
    let mut taken = HashSet::new();
    let mut ids = HashSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        let (x, y) = (place("x"), place("y"));
        assert!(x + place("w") <= 24, "{title} is off the grid");
        for cell in (x..x + place("w")).flat_map(|x| (y..y + place("h")).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert_ne!(panel["description"], "", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("instance=~\"$instance\""), "{title}");
            assert_eq!(faults(expression, &said), [""; 0], "{title}: {expression}");
        }
    }
}

#[test]
fn before_the_model_is_loaded_the_stage_is_told_and_nothing_of_an_engine() {
    let metrics = Metrics::new("org/model");
    let text = metrics.text(&Sight {
        loaded: 0.25,
        ..sight("loading", Some(Vec::new()))
    });
    assert!(text.contains("\nllm_server_stage{stage=\"loading\"} 1\n"));
    assert!(text.contains("\nllm_server_stage{stage=\"ready\"} 0\n"));
    assert!(text.contains("\nllm_server_load_progress_ratio 0.25\n"));
    assert!(text.contains("fingerprint=\"none\",model=\"org/model\",engine=\"none\"} 1\n"));
    assert!(!text.contains("llm_server_sequences") && !text.contains("gpu"));
}

#[test]
fn a_driver_that_does_not_answer_is_told_and_without_gpus_nothing_is() {
    let mut families = Families::default();
    gpus::add(&mut families, Some(&[]));
    assert!(families.into_inner().is_empty());
    let mut families = Families::default();
    gpus::add(&mut families, None);
    let text = TextEncoder::new()
        .encode_to_string(&families.into_inner())
        .unwrap();
    assert!(text.ends_with("\nllm_server_gpu_driver_answers 0\n"));
}

#[test]
fn a_lost_gpu_keeps_its_number_and_has_no_readings() {
    let text = everything();
    assert!(text.contains("llm_server_gpu_reachable{gpu=\"0\"} 1\n"));
    assert!(text.contains("llm_server_gpu_reachable{gpu=\"1\"} 0\n"));
    assert!(text.contains("llm_server_gpu_utilization_ratio{gpu=\"0\"} 0.97\n"));
    assert!(!text.contains("llm_server_gpu_utilization_ratio{gpu=\"1\"}"));
    assert!(text.contains("llm_server_gpu_throttled{reason=\"power_cap\",gpu=\"0\"} 1\n"));
    assert!(text.contains("name=\"NVIDIA \\\"X\\\"\""));
}

#[test]
fn speeds_are_of_what_was_computed_and_not_of_crumbs() {
    let metrics = Metrics::new("m");
    let usage = |prompt_tokens, cached_tokens, completion_tokens| Usage {
        prompt_tokens,
        cached_tokens,
        completion_tokens,
        ..Usage::default()
    };
    let second = Duration::from_secs(1);
    metrics.prefilled(&usage(1000, 900, 0), second);
    metrics.prefilled(&usage(1000, 980, 0), second);
    metrics.decoded(&usage(0, 0, 41), second);
    metrics.decoded(&usage(0, 0, 1), Duration::ZERO);
    let text = metrics.text(&sight("loading", None));
    assert!(text.contains("llm_server_prefill_tokens_per_second_sum 100\n"));
    assert!(text.contains("llm_server_prefill_tokens_per_second_count 1\n"));
    assert!(text.contains("llm_server_decode_tokens_per_second_sum 40\n"));
    assert!(text.contains("llm_server_decode_tokens_per_second_count 1\n"));
}
