//! The run on a terminal: a bar for all of it, with the time left, and a line for each worker.
//!
//! Where stderr is no terminal nothing is drawn, and the programs' own lines appear as they are.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use cifar_guard::Credentials;
use cifar_params::Layout;
use cifar_wire::client::Client;
use cifar_wire::messages::{Status, WorkerStatus};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;

/// How often the run is asked how it stands.
const REFRESH: Duration = Duration::from_millis(500);

/// Workers that have a line of their own; a terminal has no room for more.
const MAX_WORKER_LINES: usize = 16;

/// What is drawn, if anything.
#[derive(Clone, Debug)]
pub struct Progress {
    drawn: Option<(MultiProgress, ProgressBar)>,
}

impl Progress {
    /// Draws if stderr is a terminal.
    #[must_use]
    pub fn new(max_steps: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress { drawn: None };
        }
        let all = MultiProgress::new();
        let run = all
            .add(ProgressBar::new(max_steps).with_style(style("{bar:30} step {pos}/{len}  {msg}")));
        Progress {
            drawn: Some((all, run)),
        }
    }

    /// Whether there is a terminal to draw on.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.drawn.is_some()
    }

    /// Writes a line above what is drawn.
    pub fn say(&self, line: &str) {
        match &self.drawn {
            // The terminal may be gone; then nobody reads it.
            Some((all, _)) => drop(all.println(line)),
            None => eprintln!("{line}"),
        }
    }

    /// Writes a result to stdout, beside what is drawn.
    ///
    /// # Errors
    ///
    /// If nobody takes it.
    pub fn result(&self, line: &str) -> io::Result<()> {
        let write = || writeln!(io::stdout(), "{line}");
        match &self.drawn {
            Some((all, _)) => all.suspend(write),
            None => write(),
        }
    }

    /// Writes what a program writes to stderr above what is drawn.
    pub fn pass_on(&self, stderr: Option<ChildStderr>) {
        let Some(stderr) = stderr else { return };
        let progress = self.clone();
        tokio::task::spawn_local(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                progress.say(&line);
            }
        });
    }

    /// Keeps asking the server at `address` how the run stands and draws it, for ever.
    pub async fn follow(self, address: String, credentials: Credentials) {
        let Some((all, run)) = &self.drawn else {
            return std::future::pending().await;
        };
        let Ok(mut client) = Client::new(&address, &Layout::cifar10(), &credentials) else {
            return std::future::pending().await;
        };
        let mut lines: Vec<ProgressBar> = Vec::new();
        loop {
            if let Ok(status) = client.status().await {
                run.set_length(status.max_steps.0);
                run.set_position(status.global_step.0);
                run.set_message(run_line(&status));
                let shown = status.workers.len().min(MAX_WORKER_LINES);
                while lines.len() < shown {
                    lines.push(all.add(ProgressBar::no_length().with_style(style("  {msg}"))));
                }
                for (line, worker) in lines.iter().zip(&status.workers) {
                    line.set_message(worker_line(worker));
                }
            }
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Removes what is drawn.
    pub fn clear(&self) {
        if let Some((all, _)) = &self.drawn {
            drop(all.clear());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}

fn run_line(status: &Status) -> String {
    let Some(loss) = status.loss else {
        return status.activity.clone();
    };
    let rate = status.examples_per_sec;
    let left = time_left(status).map_or(String::new(), |left| format!("  {left} left"));
    format!("loss {loss:.2}  {rate:.0} examples/s{left}")
}

/// How long the run takes from here at the speed of its last steps.
fn time_left(status: &Status) -> Option<HumanDuration> {
    let steps = status.max_steps.0.saturating_sub(status.global_step.0);
    let examples = steps as f64 * status.run.examples_per_update() as f64;
    let seconds = examples / status.examples_per_sec;
    let left = Duration::try_from_secs_f64(seconds).ok()?;
    Some(HumanDuration(Duration::from_secs(left.as_secs())))
}

fn worker_line(worker: &WorkerStatus) -> String {
    let doing = match worker.tower {
        Some(tower) => format!("computes tower {tower}"),
        None => "waits".to_owned(),
    };
    format!(
        "worker {:<3} {:<24} {:>7} tower steps  {:>5} ms each  {doing}",
        worker.worker,
        worker.name,
        worker.tower_steps,
        worker.compute_time.as_millis(),
    )
}

#[cfg(test)]
mod tests {
    use cifar_sequence::Tower;
    use cifar_wire::messages::WorkerId;

    use super::*;

    #[test]
    fn a_workers_line_says_what_it_does() {
        let worker = WorkerStatus {
            worker: WorkerId(1),
            name: "host/12".to_owned(),
            tower: Some(Tower(3)),
            tower_steps: 40,
            compute_time: Duration::from_millis(170),
        };
        assert!(worker_line(&worker).ends_with("170 ms each  computes tower 3"));
        assert!(
            worker_line(&WorkerStatus {
                tower: None,
                ..worker
            })
            .ends_with("waits")
        );
    }
}
