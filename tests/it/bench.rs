//! Do the measurements measure? What they come to is for `cargo xtask bench` to say.

use std::process::Command;

use pserver_cli::exit::Exit;
use serde_json::Value;

use crate::program::{BENCH, Program, SERVER, WORKER, command};

/// What a measurement of these programs prints, which is one line of JSON.
fn measured(arguments: &[&str]) -> Value {
    let mut bench: Command = command(BENCH);
    bench.args(arguments).args(["--ps-program", SERVER]);
    let mut program = Program::start(&mut bench);
    assert_eq!(program.wait(), Exit::Complete);
    let stdout = program.stdout();
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[track_caller]
fn assert_above_zero(figures: &Value, names: &[&str]) {
    for name in names {
        let number = figures[name].as_f64();
        assert!(number > Some(0.0), "{name} is {number:?} in {figures}");
    }
}

#[test]
fn a_server_is_measured_with_one_and_with_two_idle_workers() {
    let figures = measured(&["load", "--workers", "2", "--seconds", "0.1"]);
    let loads = figures["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2);
    for (load, workers) in loads.iter().zip(1..) {
        assert_eq!(load["workers"], workers);
        let names = ["steps", "step_ms", "commit_ms", "most_tower_steps"];
        assert_above_zero(load, &names);
    }
}

#[test]
fn a_push_and_a_pull_are_measured() {
    let figures = measured(&["transport", "--seconds", "0.1"]);
    let names = ["push_ms", "pull_ms", "push_pull_ms", "control_ms"];
    assert_above_zero(&figures, &names);
}

#[test]
fn a_run_is_measured_with_its_phases() {
    let server = ["--server-flag=--kernels=torch", "--worker-program", WORKER];
    let figures = measured(&[&["training", "--seconds", "0.5"], &server[..]].concat());
    let names = ["examples_per_sec", "compute_ms", "apply_ms", "write_ms"];
    assert_above_zero(&figures, &names);
    assert_above_zero(&figures, &["server_resident_mb", "worker_resident_mb"]);
}
