//! The tutorial's lines about a run, and how fast it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pserver_cli::logging::{LogFormat, tutorial_line};
use pserver_run::{GlobalStep, RunConfig};
use tracing::info;

/// Steps over which the speed is averaged.
const WINDOW: usize = 20;

/// When the last steps were committed.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    /// The moment the first work was given, then that of each commit; the newest last.
    moments: VecDeque<Instant>,
}

impl Throughput {
    /// Work is given; what came before the first work does not count.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.moments.is_empty() {
            self.moments.push_back(now);
        }
    }

    /// A step was committed.
    pub(crate) fn step(&mut self, now: Instant) {
        self.moments.push_back(now);
        if self.moments.len() > WINDOW + 1 {
            self.moments.pop_front();
        }
    }

    /// Mean time of the last steps; zero before the first.
    pub(crate) fn step_time(&self) -> Duration {
        let steps = self.moments.len().saturating_sub(1);
        match (self.moments.front(), self.moments.back()) {
            (Some(first), Some(last)) if steps > 0 => (*last - *first) / steps as u32,
            _ => Duration::ZERO,
        }
    }
}

/// Writes the line of every so many steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepLog {
    /// Lines are written for multiples of this step; 0 for none.
    pub(crate) frequency: u64,
    /// Who reads them.
    pub(crate) format: LogFormat,
    /// Examples in one step.
    pub(crate) examples_per_step: u64,
    /// Batches in one step.
    pub(crate) batches_per_step: u32,
}

impl StepLog {
    /// The log of a run.
    pub(crate) fn new(frequency: u64, format: LogFormat, run: &RunConfig) -> Self {
        StepLog {
            frequency,
            format,
            examples_per_step: run.examples_per_update(),
            batches_per_step: run.gradients_per_update(),
        }
    }

    /// Notes that the update of `global_step`, counted before it, was applied.
    ///
    /// As in the tutorial, the rate counts the examples of all towers and the time of a batch is
    /// that of the step divided by the towers.
    pub(crate) fn committed(&self, global_step: GlobalStep, loss: f32, step_time: Duration) {
        if self.frequency == 0 || !global_step.0.is_multiple_of(self.frequency) {
            return;
        }
        let seconds = step_time.as_secs_f64().max(1e-9);
        let examples_per_sec = self.examples_per_step as f64 / seconds;
        let sec_per_batch = seconds / f64::from(self.batches_per_step);
        match self.format {
            LogFormat::Text => tutorial_line(&step_line(
                global_step,
                loss,
                examples_per_sec,
                sec_per_batch,
            )),
            LogFormat::Json => info!(
                global_step = global_step.0,
                loss, examples_per_sec, sec_per_batch, "step"
            ),
        }
    }
}

fn step_line(
    global_step: GlobalStep,
    loss: f32,
    examples_per_sec: f64,
    sec_per_batch: f64,
) -> String {
    format!(
        "step {global_step}, loss = {loss:.2} ({examples_per_sec:.1} examples/sec; {sec_per_batch:.3} sec/batch)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::some_time;

    #[test]
    fn the_line_is_the_tutorials() {
        let line = step_line(GlobalStep(40), 4.3712, 1234.56, 0.10371);
        assert_eq!(
            line,
            "step 40, loss = 4.37 (1234.6 examples/sec; 0.104 sec/batch)"
        );
    }

    #[test]
    fn the_step_time_is_the_mean_of_the_last_steps() {
        let start = some_time();
        let mut throughput = Throughput::default();
        assert_eq!(throughput.step_time(), Duration::ZERO);
        throughput.begin(start);
        throughput.begin(start + Duration::from_secs(100));
        for second in 1..=60 {
            let slow_start = Duration::from_secs(if second < 30 {
                second * 10
            } else {
                300 + second
            });
            throughput.step(start + slow_start);
        }
        assert_eq!(throughput.step_time(), Duration::from_secs(1));
    }
}
