//! The result of a measurement: named numbers, one line of JSON on stdout.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// All examples of all workers.
pub const EXAMPLES_PER_SEC: &str = "examples_per_sec";
/// Time of a step of the run.
pub const STEP_MS: &str = "step_ms";

/// Time of the loss and gradient of one tower step.
pub const COMPUTE_MS: &str = "compute_ms";
/// Rate of the matrix product, a thousand million operations a second.
pub const SGEMM_GFLOPS: &str = "sgemm_gflops";
/// The rate of [`COMPUTE_MS`] over [`SGEMM_GFLOPS`], both taken in turns by one process.
pub const FRACTION_OF_SGEMM: &str = "fraction_of_sgemm";
/// Bytes read and written, a thousand million a second, copying one model's variables again and again.
pub const MEMCPY_GB_PER_SEC: &str = "memcpy_gb_per_sec";
/// Bytes that the update of two towers reads and writes, a thousand million a second, out of caches as far as
/// they go.
pub const APPLY_WARM_GB_PER_SEC: &str = "apply_warm_gb_per_sec";
/// The same of copying as many bytes.
pub const MEMCPY_WARM_GB_PER_SEC: &str = "memcpy_warm_gb_per_sec";
/// The same of an update out of memory.
pub const APPLY_COLD_GB_PER_SEC: &str = "apply_cold_gb_per_sec";
/// The same of copying as many bytes out of memory.
pub const MEMCPY_COLD_GB_PER_SEC: &str = "memcpy_cold_gb_per_sec";

/// From the commit before to being given a tower step, mean over the towers.
pub const ASK_MS: &str = "ask_ms";
/// From giving a tower step out to having its gradient, without computing: both ways of the wire.
pub const TRANSPORT_MS: &str = "transport_ms";
/// From having a gradient to having all of the step, mean over the towers.
pub const BARRIER_MS: &str = "barrier_ms";
/// Mean, gradient descent and averages.
pub const APPLY_MS: &str = "apply_ms";
/// Digest of the new state.
pub const DIGEST_MS: &str = "digest_ms";
/// The state into its file.
pub const WRITE_MS: &str = "write_ms";
/// The record into the ledger.
pub const LEDGER_MS: &str = "ledger_ms";

/// CPU time of the server as a part of that of all processes of the run.
pub const SERVER_CPU_SHARE: &str = "server_cpu_share";
/// CPU time of the server for a step.
pub const SERVER_CPU_MS_PER_STEP: &str = "server_cpu_ms_per_step";
/// CPU time of all workers for a step.
pub const WORKERS_CPU_MS_PER_STEP: &str = "workers_cpu_ms_per_step";
/// Resident memory of the server, a million bytes.
pub const SERVER_RESIDENT_MB: &str = "server_resident_mb";
/// The most that the server ever had resident.
pub const SERVER_PEAK_MB: &str = "server_peak_mb";
/// Resident memory of the largest worker.
pub const WORKER_RESIDENT_MB: &str = "worker_resident_mb";

/// A pull that brings the variables.
pub const PULL_MS: &str = "pull_ms";
/// A push after which the step still waits for another tower.
pub const PUSH_MS: &str = "push_ms";
/// Such a push and such a pull in one request.
pub const PUSH_PULL_MS: &str = "push_pull_ms";
/// A question and its answer of a few bytes: messages alone.
pub const CONTROL_MS: &str = "control_ms";
/// What is left of [`PUSH_PULL_MS`] without [`CONTROL_MS`].
pub const DATA_MS: &str = "data_ms";
/// The server's work for a commit, which is no transport.
pub const COMMIT_MS: &str = "commit_ms";
/// CPU time of the worker's side for a thousand million bytes.
pub const CLIENT_CPU_S_PER_GB: &str = "client_cpu_s_per_gb";
/// CPU time of the server's side for a thousand million bytes, without commits.
pub const SERVER_CPU_S_PER_GB: &str = "server_cpu_s_per_gb";

/// Named numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Adds a number.
    #[must_use]
    pub fn with(mut self, name: &str, number: f64) -> Self {
        self.0.insert(name.to_owned(), number);
        self
    }

    /// Adds a number, if there is one.
    #[must_use]
    pub fn with_some(self, name: &str, number: Option<f64>) -> Self {
        match number {
            Some(number) => self.with(name, number),
            None => self,
        }
    }

    /// The number of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What a program printed: its last line.
    ///
    /// # Errors
    ///
    /// If that is no JSON object of numbers.
    pub fn printed(stdout: &str) -> anyhow::Result<Figures> {
        let line = stdout.lines().next_back().context("it printed nothing")?;
        serde_json::from_str(line).with_context(|| format!("it printed no figures but {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_holds_the_figures() {
        let printed =
            Figures::printed("a word before\n{\"step_ms\": 7.5, \"steps\": 3}\n").unwrap();
        assert_eq!(
            printed,
            Figures::default().with(STEP_MS, 7.5).with("steps", 3.0)
        );
        assert_eq!(printed.get(STEP_MS), Some(7.5));
        assert_eq!(printed.get(PULL_MS), None);
    }

    #[test]
    fn what_holds_no_figures_is_told() {
        for (stdout, reason) in [("", "nothing"), ("killed\n", "killed"), ("[1]\n", "[1]")] {
            let error = Figures::printed(stdout).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
