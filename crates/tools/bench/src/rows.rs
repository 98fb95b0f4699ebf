//! The rows of a comparison: each a program and its flags.
//!
//! Another variant is another row here; nothing else needs to know of it.

use std::path::{Path, PathBuf};

use crate::figures::{APPLY_WARM_GB_PER_SEC, EXAMPLES_PER_SEC, PUSH_PULL_MS, SGEMM_GFLOPS};

/// PyTorch DDP, tuned by hand.
pub const DDP_TUNED: &str = "ddp tuned";
/// PyTorch DDP as one writes it first.
pub const DDP: &str = "ddp";
/// TensorFlow's parameter server with the mean over all workers.
pub const TF_PS_SYNC: &str = "tf-ps sync";
/// TensorFlow's parameter server without.
pub const TF_PS_ASYNC: &str = "tf-ps async";
/// The measure of the machine.
pub const MACHINE: &str = "machine";
/// The update of two towers, alone.
pub const APPLY: &str = "apply";

/// A run that nobody looks at and of which nothing is summarised.
pub const UNSEEN: &str = "unseen";
/// The same with a summary every hundred steps, its page open in a browser and its metrics collected.
pub const WATCHED: &str = "watched";

/// Kernels of the workers.
const KERNELS: [&str; 3] = ["torch", "direct", "winograd"];

/// Ways that gradients and variables may travel.
const DATA_PLANES: [&str; 2] = ["wire", "shm"];

/// Times of what is steady after seconds.
const SECONDS_OF_MACHINE: &str = "--seconds=3";
const SECONDS_OF_APPLY: &str = "--seconds=3";
const SECONDS_OF_TRANSPORT: &str = "--seconds=4";

/// What a row measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The machine itself.
    Machine,
    /// The update of two towers, and a copy.
    Apply,
    /// A worker without a server.
    Lone {
        /// Its kernels.
        kernels: &'static str,
    },
    /// Two of them at once.
    TwoLone {
        /// Their kernels.
        kernels: &'static str,
    },
    /// A server and two workers.
    Ours {
        /// The workers' kernels.
        kernels: &'static str,
    },
    /// A server and two workers at their fastest, looked at or not.
    Watched,
    /// Another system with two workers.
    Peer,
    /// A push and a pull.
    Transport,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// For people, and for `--only`.
    pub name: String,
    /// What it measures.
    pub kind: Kind,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What the name of a row ends with that measures an older build.
const OF_OLD: &str = " of old";

impl Row {
    /// The same of an older build, whose programs are in `folder`. `None` where a row measures none of them.
    ///
    /// A run is measured by this build in both rows.
    #[must_use]
    pub fn of_old(&self, folder: &Path) -> Option<Row> {
        let mut row = Row {
            name: self.name.clone() + OF_OLD,
            ..self.clone()
        };
        match self.kind {
            Kind::Ours { .. } | Kind::Watched => {
                let flag = |flag: &str, program: &str| {
                    format!("--{flag}={}", folder.join(program).display())
                };
                row.arguments.push(flag("ps-program", "cifar-ps"));
                row.arguments.push(flag("worker-program", "cifar-worker"));
            }
            Kind::Apply | Kind::Lone { .. } | Kind::TwoLone { .. } | Kind::Transport => {
                if self.program.file_name()? != "cifar-bench" {
                    return None;
                }
                row.program = folder.join("cifar-bench");
            }
            Kind::Machine | Kind::Peer => return None,
        }
        Some(row)
    }

    /// The name of the row that measures the newer build, if this one measures an older.
    #[must_use]
    pub fn name_of_new(&self) -> Option<&str> {
        self.name.strip_suffix(OF_OLD)
    }
}

/// Where the programs of the rows are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `cifar-bench` itself.
    pub bench: PathBuf,
    /// Folder of the peers' scripts.
    pub peers: PathBuf,
    /// A Python with PyTorch, if there is one.
    pub torch_python: Option<PathBuf>,
    /// A Python with TensorFlow, if there is one.
    pub tensorflow_python: Option<PathBuf>,
    /// A Chromium, if there is one.
    pub browser: Option<PathBuf>,
}

/// All rows that can be measured here, in the order of a round: what is compared with each other is
/// measured close together.
#[must_use]
pub fn all(programs: &Programs, seconds: f64) -> Vec<Row> {
    let machine = ["machine", SECONDS_OF_MACHINE];
    let mut rows = vec![
        bench(programs, MACHINE, Kind::Machine, &machine),
        bench(programs, APPLY, Kind::Apply, &["apply", SECONDS_OF_APPLY]),
    ];
    for kernels in KERNELS {
        rows.extend(rows_of_kernels(programs, kernels, seconds));
    }
    rows.extend(peers(programs, seconds));
    rows.extend(watched(programs, seconds));
    for plane in DATA_PLANES {
        rows.push(bench(
            programs,
            &format!("push+pull {plane}"),
            Kind::Transport,
            &[
                "transport",
                SECONDS_OF_TRANSPORT,
                &format!("--data-plane={plane}"),
            ],
        ));
    }
    if let Some(python) = &programs.torch_python {
        let script = programs.peers.join("gloo.py");
        let flags = [SECONDS_OF_TRANSPORT.to_owned()];
        rows.push(Row {
            name: "push+pull gloo".to_owned(),
            kind: Kind::Transport,
            program: python.clone(),
            arguments: two_ranks(&script, &flags),
        });
    }
    rows
}

fn bench(programs: &Programs, name: &str, kind: Kind, arguments: &[&str]) -> Row {
    Row {
        name: name.to_owned(),
        kind,
        program: programs.bench.clone(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
    }
}

fn rows_of_kernels(programs: &Programs, kernels: &'static str, seconds: f64) -> Vec<Row> {
    let seconds = format!("--seconds={seconds}");
    let of_lone = format!("--kernels={kernels}");
    let of_ours = format!("--server-flag=--kernels={kernels}");
    let mut rows = vec![
        bench(
            programs,
            &format!("lone {kernels}"),
            Kind::Lone { kernels },
            &["lone", &seconds, &of_lone],
        ),
        bench(
            programs,
            &format!("two lone {kernels}"),
            Kind::TwoLone { kernels },
            &["lone", &seconds, &of_lone, "--processes=2"],
        ),
    ];
    for plane in DATA_PLANES {
        let of_worker = format!("--worker-flag=--data-plane={plane}");
        let name = format!("ours {kernels} {plane}");
        let arguments = ["training", &seconds, &of_ours, &of_worker];
        rows.push(bench(programs, &name, Kind::Ours { kernels }, &arguments));
    }
    rows
}

fn watched(programs: &Programs, seconds: f64) -> Vec<Row> {
    let Some(browser) = &programs.browser else {
        return Vec::new();
    };
    let seconds = format!("--seconds={seconds}");
    let with_browser = format!("--watched-with={}", browser.display());
    let row = |name, flag: &str| {
        let arguments = [
            "training",
            &seconds,
            "--server-flag=--kernels=winograd",
            flag,
        ];
        bench(programs, name, Kind::Watched, &arguments)
    };
    vec![
        row(UNSEEN, "--server-flag=--summary-steps=0"),
        row(WATCHED, &with_browser),
    ]
}

fn peers(programs: &Programs, seconds: f64) -> Vec<Row> {
    let seconds = format!("--seconds={seconds}");
    let peer = |name: &str, python: &Path, arguments| Row {
        name: name.to_owned(),
        kind: Kind::Peer,
        program: python.to_owned(),
        arguments,
    };
    let mut rows = Vec::new();
    if let Some(python) = &programs.torch_python {
        let script = programs.peers.join("ddp.py");
        let plain = [seconds.clone()];
        let tuned = [seconds.clone(), "--tuned".to_owned()];
        rows.push(peer(DDP, python, two_ranks(&script, &plain)));
        rows.push(peer(DDP_TUNED, python, two_ranks(&script, &tuned)));
    }
    if let Some(python) = &programs.tensorflow_python {
        let script = programs.peers.join("tf_ps.py").display().to_string();
        let arguments =
            |mode: &str| vec![script.clone(), format!("--mode={mode}"), seconds.clone()];
        rows.push(peer(TF_PS_SYNC, python, arguments("sync")));
        rows.push(peer(TF_PS_ASYNC, python, arguments("async")));
    }
    rows
}

/// Arguments of a Python with PyTorch that runs a script as two processes, as `torchrun` does.
fn two_ranks(script: &Path, flags: &[String]) -> Vec<String> {
    let launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
    ];
    let mut arguments: Vec<String> = launcher.map(str::to_owned).into();
    arguments.push(script.display().to_string());
    arguments.extend_from_slice(flags);
    arguments
}

/// Whether a row is wanted: all are if nothing was asked for.
#[must_use]
pub fn is_wanted(row: &Row, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|part| row.name.contains(part.as_str()))
}

/// The figure that a row is about, and its unit.
pub(crate) fn figure_of(row: &Row) -> (&'static str, &'static str) {
    match row.kind {
        Kind::Machine => (SGEMM_GFLOPS, "GF/s"),
        Kind::Apply => (APPLY_WARM_GB_PER_SEC, "GB/s"),
        Kind::Transport => (PUSH_PULL_MS, "ms"),
        Kind::Lone { .. }
        | Kind::TwoLone { .. }
        | Kind::Ours { .. }
        | Kind::Watched
        | Kind::Peer => (EXAMPLES_PER_SEC, "examples/s"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn programs(python: Option<&str>) -> Programs {
        Programs {
            bench: "cifar-bench".into(),
            peers: "peers".into(),
            torch_python: python.map(PathBuf::from),
            tensorflow_python: python.map(PathBuf::from),
            browser: python.map(|_| PathBuf::from("chromium")),
        }
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn peers_without_an_environment_have_no_rows() {
        let rows = all(&programs(None), 1.0);
        assert!(rows.iter().all(|row| row.kind != Kind::Peer));
        let with_peers = all(&programs(Some("python")), 1.0);
        for peer in [DDP, DDP_TUNED, TF_PS_SYNC, TF_PS_ASYNC, "push+pull gloo"] {
            assert!(names(&with_peers).contains(&peer), "{peer}");
        }
    }

    #[test]
    fn a_row_is_a_program_with_flags_that_it_has() {
        for row in all(&programs(Some("python")), 2.5) {
            if row.program == Path::new("cifar-bench") {
                let words = std::iter::once("cifar-bench".to_owned()).chain(row.arguments);
                let parsed = crate::program::Args::command().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{}: {parsed:?}", row.name);
            }
        }
    }

    #[test]
    fn what_is_this_projects_is_measured_of_an_older_build_too() {
        let rows = all(&programs(Some("python")), 1.0);
        let of_old: Vec<Row> = rows
            .iter()
            .filter_map(|row| row.of_old(Path::new("old")))
            .collect();
        let row = |name: &str| of_old.iter().find(|row| row.name_of_new() == Some(name));
        let training = row("ours winograd shm").unwrap();
        assert_eq!(training.program, Path::new("cifar-bench"));
        let last = training.arguments.last().unwrap();
        assert_eq!(last, "--worker-program=old/cifar-worker");
        assert_eq!(row(APPLY).unwrap().program, Path::new("old/cifar-bench"));
        for other in [MACHINE, DDP, "push+pull gloo"] {
            assert!(row(other).is_none(), "{other}");
        }
    }

    #[test]
    fn only_names_parts_of_the_rows() {
        let rows = all(&programs(Some("python")), 1.0);
        let wanted = |only: &[&str]| -> Vec<String> {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            let rows = rows.iter().filter(|row| is_wanted(row, &only));
            rows.map(|row| row.name.clone()).collect()
        };
        assert_eq!(wanted(&["ddp"]), [DDP, DDP_TUNED]);
        assert_eq!(wanted(&[]).len(), rows.len());
        assert!(wanted(&["lone torch"]).contains(&"two lone torch".to_owned()));
    }
}
