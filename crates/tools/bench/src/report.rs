//! The tables of a comparison, and the page around them.

use std::fmt::Write;

use serde::Serialize;

use crate::apply::BUFFERS_OF_APPLY;
use crate::figures::{
    APPLY_COLD_GB_PER_SEC, APPLY_MS, APPLY_WARM_GB_PER_SEC, ASK_MS, BARRIER_MS,
    CLIENT_CPU_S_PER_GB, COMMIT_MS, COMPUTE_MS, CONTROL_MS, DATA_MS, DIGEST_MS, EXAMPLES_PER_SEC,
    FRACTION_OF_SGEMM, LEDGER_MS, MEMCPY_COLD_GB_PER_SEC, MEMCPY_GB_PER_SEC,
    MEMCPY_WARM_GB_PER_SEC, PULL_MS, PUSH_MS, PUSH_PULL_MS, SERVER_CPU_MS_PER_STEP,
    SERVER_CPU_S_PER_GB, SERVER_CPU_SHARE, SERVER_PEAK_MB, SERVER_RESIDENT_MB, SGEMM_GFLOPS,
    STEP_MS, TRANSPORT_MS, WORKER_RESIDENT_MB, WORKERS_CPU_MS_PER_STEP, WRITE_MS,
};
use crate::results::Results;
use crate::rows::{APPLY, DDP, DDP_TUNED, Kind, Row, TF_PS_SYNC, UNSEEN, figure_of};
use crate::table::{Table, cell};

/// How and on what the measurements were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The day.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// Release and commit.
    pub commit: String,
    /// The machine.
    pub hardware: String,
    /// How many processes wanted a core in the minute before.
    pub load: f64,
    /// How often each row was measured.
    pub rounds: u32,
    /// For how long each time.
    pub seconds: f64,
}

/// The page: tables of medians over the rounds.
#[must_use]
pub fn report(setting: &Setting, rows: &[Row], results: &Results) -> String {
    let mut page = head(setting);
    let sections = [
        ("New against old", "", against_old(rows, results)),
        (
            "Training: two workers of one thread, synthetic data, 128 examples a tower",
            "",
            training(rows, results),
        ),
        (
            "The phases of a step, ms (mean over the towers)",
            "Where memory is shared, `transport` also copies the gradients out of it and takes their norms.\n\n",
            phases(rows, results),
        ),
        ("The server, and memory", "", server(rows, results)),
        (
            "Summaries every 100 steps, the page open in a browser, the metrics collected every second",
            "",
            watched(rows, results),
        ),
        (
            "The update of two towers alone, out of caches and out of memory",
            "",
            apply(rows, results),
        ),
        ("A worker without a server", "", lone(rows, results)),
        (
            "Push and pull of 4.27 MB each, nothing computed",
            "In shared memory gradients are written before the push, where a worker computes them. The server copies \
             them out before it answers.\n\n",
            transport(rows, results),
        ),
        ("The machine, one thread", "", machine(rows, results)),
    ];
    for (title, note, table) in sections {
        if !table.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(page, "\n## {title}\n\n{note}{table}");
        }
    }
    if !results.failed.is_empty() {
        page += "\n## Failed\n\n";
    }
    for failed in &results.failed {
        let _ = writeln!(
            page,
            "- {}, round {}: {}",
            failed.row, failed.round, failed.reason
        );
    }
    page
}

fn head(setting: &Setting) -> String {
    let Setting {
        date,
        command,
        commit,
        hardware,
        load,
        rounds,
        seconds,
    } = setting;
    format!(
        "# Speed, {date}\n\n    {command}\n\n\
         Commit: {commit}. Machine: {hardware}; load before the first round: {load}.\n\
         Medians of {rounds} rounds, in each of which every row had its turn of {seconds} s. `least` is the\n\
         smallest of the rounds; a ratio is the median of those within a round.\n\
         Raw numbers are in `results.json`.\n"
    )
}

/// Of each row that has one of an older build beside it: both, and the median of their ratios.
fn against_old(rows: &[Row], results: &Results) -> Table {
    let mut table = Table::new(&["row", "figure", "old", "new", "new / old"]);
    for old in rows {
        let Some(new) = old.name_of_new() else {
            continue;
        };
        let (figure, _) = figure_of(old);
        for figure in [figure, SERVER_CPU_MS_PER_STEP] {
            let ratio = results.ratio(new, &old.name, figure);
            if ratio.is_some() {
                table.row(vec![
                    new.to_owned(),
                    figure.to_owned(),
                    cell(results.median(&old.name, figure), 2),
                    cell(results.median(new, figure), 2),
                    cell(ratio, 3),
                ]);
            }
        }
    }
    table
}

fn of_kind(rows: &[Row], is: fn(&Kind) -> bool) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| is(&row.kind))
}

fn training(rows: &[Row], results: &Results) -> Table {
    let mut table = Table::new(&[
        "row",
        "examples/s",
        "least",
        "ms a step",
        "/ ddp tuned",
        "/ ddp",
        "/ tf-ps sync",
        "/ twice a lone worker",
        "/ two at once",
    ]);
    for row in of_kind(rows, |kind| {
        matches!(kind, Kind::Ours { .. } | Kind::TwoLone { .. } | Kind::Peer)
    }) {
        let ratio = |of: &str| results.ratio(&row.name, of, EXAMPLES_PER_SEC);
        let lone = match row.kind {
            Kind::Ours { kernels } => {
                let alone = ratio(&format!("lone {kernels}"));
                [
                    alone.map(|ratio| ratio / 2.0),
                    ratio(&format!("two lone {kernels}")),
                ]
            }
            _ => [None, None],
        };
        let mut cells = vec![
            row.name.clone(),
            cell(results.median(&row.name, EXAMPLES_PER_SEC), 0),
            cell(results.smallest(&row.name, EXAMPLES_PER_SEC), 0),
            cell(results.median(&row.name, STEP_MS), 1),
        ];
        let peers = [DDP_TUNED, DDP, TF_PS_SYNC].map(ratio);
        cells.extend(peers.into_iter().chain(lone).map(|ratio| cell(ratio, 2)));
        table.row(cells);
    }
    table
}

fn ratio(number: Option<f64>, of: Option<f64>) -> Option<f64> {
    Some(number? / of?)
}

/// A table of medians: headings, figures and digits after the point.
fn medians<'a>(
    rows: impl Iterator<Item = &'a Row>,
    results: &Results,
    columns: &[(&str, &str, usize)],
) -> Table {
    let mut headings = vec!["row"];
    headings.extend(columns.iter().map(|(heading, _, _)| heading));
    let mut table = Table::new(&headings);
    for row in rows {
        let mut cells = vec![row.name.clone()];
        for (_, figure, digits) in columns {
            cells.push(cell(results.median(&row.name, figure), *digits));
        }
        table.row(cells);
    }
    table
}

fn phases(rows: &[Row], results: &Results) -> Table {
    let columns = [
        ("ask for work", ASK_MS, 2),
        ("transport", TRANSPORT_MS, 2),
        ("compute", COMPUTE_MS, 2),
        ("wait at the barrier", BARRIER_MS, 2),
        ("apply", APPLY_MS, 2),
        ("digest", DIGEST_MS, 2),
        ("write", WRITE_MS, 2),
        ("ledger", LEDGER_MS, 2),
        ("step", STEP_MS, 2),
    ];
    let ours = of_kind(rows, |kind| matches!(kind, Kind::Ours { .. }));
    medians(ours, results, &columns)
}

fn server(rows: &[Row], results: &Results) -> Table {
    let mut table = Table::new(&[
        "row",
        "server's CPU %",
        "its CPU ms a step",
        "workers' CPU ms a step",
        "server MB",
        "peak MB",
        "a worker MB",
        "apply GB/s",
        "/ memcpy out of memory",
    ]);
    let megabytes = cifar_model::layout().size_bytes() as f64 / 1e6;
    // The workers have had the caches since the step before.
    let memcpy = results.median(APPLY, MEMCPY_COLD_GB_PER_SEC);
    for row in of_kind(rows, |kind| matches!(kind, Kind::Ours { .. })) {
        let median = |figure| results.median(&row.name, figure);
        // Megabytes a millisecond are gigabytes a second.
        let apply = median(APPLY_MS).map(|ms| BUFFERS_OF_APPLY as f64 * megabytes / ms);
        table.row(vec![
            row.name.clone(),
            cell(median(SERVER_CPU_SHARE).map(|share| 100.0 * share), 2),
            cell(median(SERVER_CPU_MS_PER_STEP), 2),
            cell(median(WORKERS_CPU_MS_PER_STEP), 1),
            cell(median(SERVER_RESIDENT_MB), 0),
            cell(median(SERVER_PEAK_MB), 0),
            cell(median(WORKER_RESIDENT_MB), 0),
            cell(apply, 1),
            cell(ratio(apply, memcpy), 2),
        ]);
    }
    table
}

fn apply(rows: &[Row], results: &Results) -> Table {
    let mut table = Table::new(&[
        "row",
        "warm GB/s",
        "memcpy",
        "warm / memcpy",
        "cold GB/s",
        "memcpy",
        "cold / memcpy",
    ]);
    for row in of_kind(rows, |kind| matches!(kind, Kind::Apply)) {
        let mut cells = vec![row.name.clone()];
        for (apply, memcpy) in [
            (APPLY_WARM_GB_PER_SEC, MEMCPY_WARM_GB_PER_SEC),
            (APPLY_COLD_GB_PER_SEC, MEMCPY_COLD_GB_PER_SEC),
        ] {
            let [apply, memcpy] = [apply, memcpy].map(|figure| results.median(&row.name, figure));
            cells.extend([
                cell(apply, 1),
                cell(memcpy, 1),
                cell(ratio(apply, memcpy), 2),
            ]);
        }
        table.row(cells);
    }
    table
}

fn watched(rows: &[Row], results: &Results) -> Table {
    let mut table = Table::new(&["row", "examples/s", "/ unseen", "server's CPU ms a step"]);
    for row in of_kind(rows, |kind| matches!(kind, Kind::Watched)) {
        table.row(vec![
            row.name.clone(),
            cell(results.median(&row.name, EXAMPLES_PER_SEC), 0),
            cell(results.ratio(&row.name, UNSEEN, EXAMPLES_PER_SEC), 3),
            cell(results.median(&row.name, SERVER_CPU_MS_PER_STEP), 2),
        ]);
    }
    table
}

fn lone(rows: &[Row], results: &Results) -> Table {
    let columns = [
        ("gradient ms", COMPUTE_MS, 1),
        ("examples/s", EXAMPLES_PER_SEC, 0),
        ("sgemm GF/s", SGEMM_GFLOPS, 1),
        ("gradient / sgemm", FRACTION_OF_SGEMM, 2),
        ("MB", WORKER_RESIDENT_MB, 0),
    ];
    let lone = of_kind(rows, |kind| {
        matches!(kind, Kind::Lone { .. } | Kind::TwoLone { .. })
    });
    medians(lone, results, &columns)
}

fn transport(rows: &[Row], results: &Results) -> Table {
    let columns = [
        ("push+pull ms", PUSH_PULL_MS, 2),
        ("push", PUSH_MS, 2),
        ("pull", PULL_MS, 2),
        ("messages alone", CONTROL_MS, 2),
        ("the rest, data", DATA_MS, 2),
        ("worker's CPU s/GB", CLIENT_CPU_S_PER_GB, 2),
        ("server's CPU s/GB", SERVER_CPU_S_PER_GB, 2),
        ("commit, not counted", COMMIT_MS, 2),
    ];
    let transport = of_kind(rows, |kind| matches!(kind, Kind::Transport));
    medians(transport, results, &columns)
}

fn machine(rows: &[Row], results: &Results) -> Table {
    let columns = [
        ("sgemm GF/s", SGEMM_GFLOPS, 1),
        ("memcpy of a model GB/s", MEMCPY_GB_PER_SEC, 1),
    ];
    let machine = of_kind(rows, |kind| matches!(kind, Kind::Machine));
    medians(machine, results, &columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;
    use crate::results::{Failed, Measurement};

    fn row(name: &str, kind: Kind) -> Row {
        Row {
            name: name.to_owned(),
            kind,
            program: "sh".into(),
            arguments: Vec::new(),
        }
    }

    fn page(failed: Vec<Failed>) -> String {
        let kernels = "torch";
        let rows = [
            row("lone torch", Kind::Lone { kernels }),
            row("ours torch wire", Kind::Ours { kernels }),
            row(DDP_TUNED, Kind::Peer),
        ];
        let measurement = |row: &str, rate| Measurement {
            round: 1,
            row: row.to_owned(),
            figures: Figures::default().with(EXAMPLES_PER_SEC, rate),
        };
        let measurements = vec![
            measurement("lone torch", 500.0),
            measurement("ours torch wire", 900.0),
            measurement(DDP_TUNED, 300.0),
        ];
        let setting = Setting {
            date: "2026-01-02".to_owned(),
            command: "cargo xtask bench".to_owned(),
            commit: "0.1.0".to_owned(),
            hardware: "one core".to_owned(),
            load: 0.0,
            rounds: 1,
            seconds: 20.0,
        };
        report(
            &setting,
            &rows,
            &Results {
                measurements,
                failed,
            },
        )
    }

    fn line<'a>(page: &'a str, row: &str) -> Vec<&'a str> {
        let line = page.lines().find(|line| line.contains(row)).unwrap();
        line.split('|').map(str::trim).collect()
    }

    #[test]
    fn ours_is_told_in_multiples_of_the_others() {
        let page = page(Vec::new());
        let cells = line(&page, "ours torch wire");
        assert_eq!(cells[2..4], ["900", "900"]);
        assert_eq!(cells[5..10], ["3.00", "-", "-", "0.90", "-"]);
        assert_eq!(line(&page, DDP_TUNED)[5], "/ ddp tuned");
    }

    #[test]
    fn an_older_build_is_told_by_the_ratio_to_it() {
        let new = row("ours torch wire", Kind::Ours { kernels: "torch" });
        let old = new.of_old(std::path::Path::new("old")).unwrap();
        let measurement = |round, row: &Row, rate| Measurement {
            round,
            row: row.name.clone(),
            figures: Figures::default().with(EXAMPLES_PER_SEC, rate),
        };
        let measurements = vec![
            measurement(1, &old, 100.0),
            measurement(1, &new, 110.0),
            measurement(2, &new, 260.0),
            measurement(2, &old, 200.0),
        ];
        let results = Results {
            measurements,
            failed: Vec::new(),
        };
        let table = against_old(&[old, new], &results).to_string();
        assert_eq!(
            line(&table, "ours")[2..6],
            [EXAMPLES_PER_SEC, "150.00", "185.00", "1.200"]
        );
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let page = page(Vec::new());
        assert!(
            page.contains("## Training") && !page.contains("## Push"),
            "{page}"
        );
        assert!(!page.contains("Failed"));
    }

    #[test]
    fn what_failed_is_told() {
        let failed = Failed {
            round: 2,
            row: DDP.to_owned(),
            reason: "it fell".to_owned(),
        };
        assert!(page(vec![failed]).contains("- ddp, round 2: it fell\n"));
    }
}
