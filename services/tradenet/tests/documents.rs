//! What the documents say of metrics is what the code has: every row, every name in the dashboard and the alerts.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tradenet_core::metrics::{Kind, Metric};

const BEGIN: &str = "<!-- metrics: begin -->\n";
const END: &str = "<!-- metrics: end -->\n";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(docs().join(name)).unwrap()
}

/// All metrics of all services, by name.
fn metrics() -> BTreeMap<&'static str, &'static Metric> {
    let all: Vec<_> = tradenet_runtime::metrics::tables().chain(tradenet_frontend::METRICS.iter().copied()).collect();
    let by_name: BTreeMap<_, _> = all.iter().map(|metric| (metric.name, *metric)).collect();
    assert_eq!(by_name.len(), all.len(), "a name stands twice");
    by_name
}

/// What a metric's samples are called.
fn samples(metric: &Metric) -> Vec<String> {
    let suffixes: &[&str] = match metric.kind {
        Kind::Counter => &["_total"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["_bucket", "_sum", "_count"],
        Kind::Info => &["_info"],
    };
    suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name)).collect()
}

fn table() -> String {
    let mut table = String::from("| metric | kind | labels | what |\n| --- | --- | --- | --- |\n");
    for (name, Metric { kind, labels, help, .. }) in metrics() {
        let (suffix, kind) = match kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
            Kind::Info => ("_info", "info"),
        };
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{name}{suffix}` | {kind} | {labels} | {help} |").unwrap();
    }
    table
}

#[test]
fn the_table_of_metrics_is_the_codes() {
    let text = read("metrics.md");
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let expected = table();
    if std::env::var_os("TRADENET_WRITE_DOCS").is_some() {
        std::fs::write(docs().join("metrics.md"), [before, BEGIN, &expected, END, after].concat()).unwrap();
    } else {
        assert_eq!(found, expected, "run this test with TRADENET_WRITE_DOCS=1");
    }
}

#[test]
fn names_and_help_keep_the_rules_of_prometheus() {
    for (name, metric) in metrics() {
        let own = name.starts_with("tradenet_") || name.starts_with("process_");
        assert!(own && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        for suffix in ["_total", "_info", "_count", "_sum", "_bucket", "_ms", "_us", "_milliseconds"] {
            assert!(!name.ends_with(suffix), "{name}");
        }
        let of_time = name.contains("duration") || name.contains("_time_");
        assert_eq!(of_time || name.ends_with("cpu_seconds"), name.ends_with("_seconds"), "{name}");
        assert!(metric.help.ends_with('.') && metric.help.len() < 120 && metric.help.is_ascii(), "{}", metric.help);
        assert!(!metric.labels.contains(&"le") && metric.labels.len() <= 3, "{name}");
    }
}

/// Everything in a text that looks like a metric of ours.
fn mentioned(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("tradenet_") || word.starts_with("process_")).collect()
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let known: BTreeSet<String> = metrics().into_values().flat_map(samples).collect();
    let dashboard = read("grafana/tradenet.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    assert!(panels.iter().any(|panel| panel["targets"][0]["expr"].is_string()));
    for (name, text) in [("the dashboard", dashboard), ("the alerts", read("alerts.yaml"))] {
        let used = mentioned(&text);
        assert!(used.len() > 5, "{name}: {used:?}");
        for metric in used {
            assert!(known.contains(metric), "{name} uses {metric}, which nobody shows");
        }
    }
}

#[test]
fn alerts_are_rules_that_say_what_to_do() {
    let text = read("alerts.yaml");
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 5);
    for rule in rules {
        for part in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert_eq!(rule.matches(part).count(), 1, "{part}in {rule}");
        }
    }
    let checked = Command::new("promtool").args(["check", "rules"]).arg(docs().join("alerts.yaml")).output();
    match checked {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => eprintln!("SKIPPED: the rules were not checked with promtool ({error})"),
    }
}
