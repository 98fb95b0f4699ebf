//! What a program writes when a bug ends it, seen from another process.

use std::process::Command;
use std::{env, thread};

use pserver_cli::logging::{LogArgs, LogFormat, init};

/// Set in the process that panics.
const IN_CHILD: &str = "CIFAR_TEST_PANICS";

#[test]
fn a_panic_is_a_line_of_json_where_the_logs_are() {
    if env::var_os(IN_CHILD).is_some() {
        let args = LogArgs {
            log_format: LogFormat::Json,
            log_level: "info".to_owned(),
        };
        init(&args).unwrap();
        let _ = thread::spawn(|| panic!("a \"bug\"\nin two lines")).join();
        return;
    }
    let name = "a_panic_is_a_line_of_json_where_the_logs_are";
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(IN_CHILD, "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8(child.stderr).unwrap();
    let lines: Result<Vec<serde_json::Value>, _> =
        stderr.lines().map(serde_json::from_str).collect();
    let lines = lines.unwrap_or_else(|error| panic!("{error} in:\n{stderr}"));
    let message = lines[0]["message"].as_str().unwrap();
    assert!(message.contains("a \"bug\"\nin two lines"), "{message}");
    assert_eq!(lines[0]["level"], "ERROR");
}
