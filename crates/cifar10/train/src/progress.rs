//! The run on a terminal: a bar for all of it, with the time left, and a line for each worker.
//!
//! Where stderr is no terminal that can be drawn on, nothing is, and the programs' own lines appear as
//! they are.

use std::time::Duration;

use pserver_cli::console::{self, Size};
use pserver_guard::Credentials;
use pserver_run::Layout;
use pserver_wire::client::Client;
use pserver_wire::messages::{Status, WorkerStatus};

/// How often the run is asked how it stands.
const REFRESH: Duration = Duration::from_millis(500);

/// A terminal with fewer columns has no room for the names of workers.
const COLUMNS_FOR_NAMES: usize = 100;

/// Lines of a terminal that are left to what is written above the drawn ones.
const ROWS_ABOVE: usize = 4;

/// The widest bar.
const BAR: usize = 30;

/// Keeps asking the server at `address` how the run stands and draws it, for ever.
pub async fn follow(address: String, credentials: Credentials) {
    let Ok(mut client) = Client::new(&address, &Layout::default(), &credentials) else {
        return std::future::pending().await;
    };
    loop {
        if let Some(size) = console::canvas()
            && let Ok(status) = client.status().await
        {
            console::draw(lines(&status, size));
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// Draws one line, about something that takes a moment; without a terminal it is said.
pub fn show(doing: &str) {
    match console::canvas() {
        Some(_) => console::draw(vec![doing.to_owned()]),
        None => console::say(doing),
    }
}

/// Removes what is drawn.
pub fn clear() {
    console::draw(Vec::new());
}

/// The lines of a run, at most as many as leave room above them.
fn lines(status: &Status, size: Size) -> Vec<String> {
    let room = size.rows.saturating_sub(ROWS_ABOVE).max(2) - 1;
    let workers = &status.workers;
    let shown = match workers.len() <= room {
        true => workers.len(),
        false => room - 1,
    };
    let with_name = size.columns >= COLUMNS_FOR_NAMES;
    let mut lines = vec![run_line(status, size.columns)];
    lines.extend(
        workers[..shown]
            .iter()
            .map(|worker| worker_line(worker, with_name)),
    );
    let rest = &workers[shown..];
    if !rest.is_empty() {
        let waiting = rest.iter().filter(|worker| worker.tower.is_none()).count();
        lines.push(format!(
            "  and {} more workers, {waiting} of them waiting",
            rest.len()
        ));
    }
    lines
}

fn run_line(status: &Status, columns: usize) -> String {
    let (step, max_steps) = (status.global_step.0, status.max_steps.0);
    let text = format!("step {step}/{max_steps}  {}", speed(status));
    // A space after the bar, and the last column, which stays free.
    let room = columns.saturating_sub(text.chars().count() + 2).min(BAR);
    if room < 4 {
        return text;
    }
    let share = match max_steps {
        0 => 1.0,
        max_steps => (step as f64 / max_steps as f64).min(1.0),
    };
    let full = (share * (room - 2) as f64) as usize;
    format!("[{:-<width$}] {text}", "#".repeat(full), width = room - 2)
}

fn speed(status: &Status) -> String {
    let Some(loss) = status.loss else {
        return status.activity.clone();
    };
    let rate = status.examples_per_sec;
    let left = time_left(status).map_or(String::new(), |left| format!("  {left} left"));
    format!("loss {loss:.2}  {rate:.0} examples/s{left}")
}

/// How long the run takes from here at the speed of its last steps.
fn time_left(status: &Status) -> Option<String> {
    let steps = status.max_steps.0.saturating_sub(status.global_step.0);
    let examples = steps as f64 * status.run.examples_per_update() as f64;
    let left = Duration::try_from_secs_f64(examples / status.examples_per_sec).ok()?;
    let seconds = left.as_secs();
    Some(match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{:02}m", minutes % 60),
        (days, hours, _) => format!("{days}d{:02}h", hours % 24),
    })
}

fn worker_line(worker: &WorkerStatus, with_name: bool) -> String {
    let doing = match worker.tower {
        Some(tower) => format!("computes tower {tower}"),
        None => "waits".to_owned(),
    };
    let name = match with_name {
        true => format!("{:<24} ", worker.name),
        false => String::new(),
    };
    format!(
        "  worker {:<3} {name}{:>7} steps {:>5} ms each  {doing}",
        worker.worker,
        worker.tower_steps,
        worker.compute_time.as_millis(),
    )
}

#[cfg(test)]
mod tests {
    use pserver_run::{GlobalStep, StateDigest, Tower};
    use pserver_server::config::new_run;
    use pserver_wire::messages::WorkerId;

    use super::*;

    fn status(num_workers: u32) -> Status {
        let worker = |number: u32| WorkerStatus {
            worker: WorkerId(number),
            name: format!("host/{number}"),
            tower: number.is_multiple_of(2).then_some(Tower(number)),
            tower_steps: 40,
            compute_time: Duration::from_millis(170),
        };
        Status {
            global_step: GlobalStep(500),
            max_steps: GlobalStep(1000),
            examples_per_sec: 1280.0,
            loss: Some(4.67),
            workers: (0..num_workers).map(worker).collect(),
            activity: "step 500 is computed".to_owned(),
            run: new_run(&Default::default(), StateDigest(0)).expect("defaults fit together"),
        }
    }

    #[test]
    fn lines_fit_the_terminal_and_what_is_left_out_is_told() {
        for (columns, rows, num_workers) in [(60, 20, 2), (80, 24, 16), (80, 24, 64), (120, 40, 64)]
        {
            let lines = lines(&status(num_workers), Size { columns, rows });
            assert!(lines.len() + ROWS_ABOVE <= rows, "{lines:#?}");
            let widest = lines.iter().map(|line| line.chars().count()).max();
            assert!(widest < Some(columns), "{lines:#?}");
            let shown = lines
                .iter()
                .filter(|line| line.contains(" ms each"))
                .count();
            match num_workers as usize - shown {
                0 => assert_eq!(lines.len(), 1 + shown),
                rest => {
                    let told = format!("and {rest} more workers, {} of them", rest / 2);
                    assert!(lines[shown + 1].contains(&told), "{lines:#?}");
                }
            }
        }
    }

    #[test]
    fn the_first_line_is_a_bar_with_loss_speed_and_the_time_left() {
        let status = status(1);
        let text = "step 500/1000  loss 4.67  1280 examples/s  50s left";
        assert_eq!(
            run_line(&status, 120),
            format!("[{}{}] {text}", "#".repeat(14), "-".repeat(14))
        );
        assert_eq!(run_line(&status, 60), format!("[##---] {text}"));
        assert_eq!(run_line(&status, 40), text);
    }

    #[test]
    fn the_time_left_is_told_in_two_units() {
        for (examples_per_sec, expected) in [
            (1280.0, Some("50s")),
            (128.0, Some("8m20s")),
            (10.0, Some("1h46m")),
            (0.1, Some("7d09h")),
            (0.0, None),
        ] {
            let status = Status {
                examples_per_sec,
                ..status(1)
            };
            assert_eq!(time_left(&status).as_deref(), expected);
        }
    }

    #[test]
    fn a_workers_line_says_what_it_does() {
        let status = status(2);
        let told = |worker: usize| worker_line(&status.workers[worker], true);
        assert!(told(0).contains("host/0 "));
        assert!(told(0).ends_with("170 ms each  computes tower 0"));
        assert!(told(1).ends_with("waits"));
    }
}
