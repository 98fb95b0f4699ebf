//! The metrics of a run, and the dashboard that is made for them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::http;
use crate::program::eventually;

/// What follows the name of a metric where its samples are told.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// A short run that was scored, and what its metrics are at the end of it.
fn metrics_of_a_run() -> String {
    let mut cluster = Cluster::builder()
        .workers(2)
        .max_steps(1_000_000)
        .server_flags(&["--http", "127.0.0.1:0", "--checkpoint-steps", "5"])
        .worker_flags(&["--data-plane", "wire"])
        .start();
    let address = cluster.server.program.wait_for("http ADDR", |program| {
        let stdout = program.stdout();
        let line = stdout.lines().nth(1)?;
        Some(line.strip_prefix("http ")?.to_owned())
    });
    let scores = cluster.train_dir().join("eval");
    fs::create_dir(&scores).unwrap();
    let score = "{\"global_step\":5,\"precision_at_1\":0.25}\n";
    fs::write(scores.join("scores.jsonl"), score).unwrap();
    cluster.wait_for_step(12);
    eventually("metrics of a scored run", || {
        let answer = http::get(&format!("http://{address}/metrics"));
        let (head, text) = answer.split_once("\r\n\r\n")?;
        let is_whole =
            text.contains("cifar_precision_at_1 ") && value(text, "cifar_global_step")? >= 12.0;
        (head.starts_with("HTTP/1.1 200") && is_whole).then(|| text.to_owned())
    })
}

/// The value of a sample, by its name and labels as they stand.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// The names of all samples.
fn names(metrics: &str) -> BTreeSet<&str> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

/// The names of metrics in the queries of a dashboard.
fn names_in_queries(dashboard: &Value, found: &mut BTreeSet<String>) {
    match dashboard {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(query) if ["expr", "query"].contains(&name.as_str()) => {
                        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                        let metrics = words.filter(|word| word.starts_with("cifar_"));
                        found.extend(metrics.map(str::to_owned));
                    }
                    _ => names_in_queries(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names_in_queries(item, found)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboard_asks_for_a_metric_that_is_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/cifar-ps.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut asked_for = BTreeSet::new();
    names_in_queries(&dashboard, &mut asked_for);
    assert!(asked_for.len() >= 15, "{asked_for:?}");

    let metrics = metrics_of_a_run();
    let there = names(&metrics);
    for name in &asked_for {
        assert!(there.contains(name.as_str()), "{name} is not in\n{metrics}");
    }
    // And the other way around: what is measured can be seen, but for what is said of the run itself.
    const NOT_DRAWN: [&str; 5] = [
        "cifar_build_info",
        "cifar_run_info",
        "cifar_max_steps",
        "cifar_score_step",
        "cifar_last_commit_timestamp_seconds",
    ];
    for name in there {
        let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        let is_drawn = |base: &str| asked_for.iter().any(|asked| asked.starts_with(base));
        assert!(
            is_drawn(base.unwrap_or(name)) || NOT_DRAWN.contains(&name),
            "{name} is nowhere in the dashboard"
        );
    }
}

#[test]
fn metrics_tell_what_happened() {
    let metrics = metrics_of_a_run();
    let sample =
        |name: &str| value(&metrics, name).unwrap_or_else(|| panic!("{name} is not in\n{metrics}"));
    let steps = sample("cifar_step_seconds_count");
    assert!(steps >= 12.0 && steps <= sample("cifar_global_step"));
    assert_eq!(sample("cifar_examples_total"), 32.0 * steps);
    assert_eq!(
        sample("cifar_gradients_total{verdict=\"accepted\"}"),
        2.0 * steps
    );
    assert_eq!(
        sample("cifar_step_phase_seconds_count{phase=\"compute\"}"),
        steps
    );
    assert_eq!(sample("cifar_worker_events_total{event=\"joined\"}"), 2.0);
    assert_eq!(sample("cifar_precision_at_1"), 0.25);
    assert!(sample("cifar_checkpoint_age_seconds") < 600.0);
    // Each step a gradient of 4.27 MB comes from each worker.
    assert!(sample("cifar_grpc_received_bytes_total") > 4e6 * steps);
    assert!(sample("cifar_grpc_sent_bytes_total") > 4e6 * steps);
    assert!(metrics.contains("# TYPE cifar_loss gauge"), "{metrics}");
    assert!(metrics.contains("cifar_build_info{version=\""), "{metrics}");
}
