//! The command line of `cifar-ps`: what a person may say about a run.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use pserver_cli::args::{fraction, positive, seconds};
use pserver_cli::logging::LogArgs;
use pserver_guard::address::{to_connect_to, to_listen_on};
use pserver_guard::args::{CredentialArgs, GuardArgs};
use pserver_run::{DataSet, DecayBy, GlobalStep, InputKind, Kernels};

use crate::commit_point::CommitPoint;
use crate::server_file::{server_of, token_file_of};

const DEFAULT_TRAIN_DIR: &str = "runs/default";

const DEFAULT_ADDRESS: &str = "127.0.0.1:2222";

/// The parameter server of a training run: holds the variables, averages the gradients that
/// cifar-worker processes push, and writes checkpoints.
///
/// A train dir holds one run. Started again with the same train dir, the server goes on from the
/// last step that was committed; settings that are not given then keep their values.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-ps", version = pserver_cli::VERSION, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do instead of serving a run.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// Address to listen on, HOST:PORT; port 0 takes a free one, printed as `listening ADDR`
    #[arg(long, default_value = DEFAULT_ADDRESS, value_name = "ADDR", value_parser = to_listen_on)]
    pub listen: String,

    /// Show the run as it goes on a page at this address, HOST:PORT, with metrics at /metrics; port 0
    /// takes a free one, printed as `http ADDR`
    #[arg(long, value_name = "ADDR", value_parser = to_listen_on)]
    pub http: Option<String>,

    /// Answer health checks of gRPC at this address too, HOST:PORT, unencrypted and nothing else: for probes
    /// that cannot do TLS; port 0 takes a free one, printed as `health ADDR`
    #[arg(long, value_name = "ADDR", value_parser = to_listen_on)]
    pub health: Option<String>,

    /// Folder of the run's checkpoints; made if it is not there, never wiped
    #[arg(long, default_value = DEFAULT_TRAIN_DIR, value_name = "DIR")]
    pub train_dir: PathBuf,

    /// Move the run in the train dir aside, to previous-N there, and begin a new one
    #[arg(long)]
    pub fresh: bool,

    /// Step at which the run is complete
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub max_steps: u64,

    /// Steps between two lines of the log; 0 for none
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub log_frequency: u64,

    /// Steps between two summaries for TensorBoard, which are written to the train dir; 0 for none
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub summary_steps: u64,

    /// Settings that make the run what it is.
    #[command(flatten)]
    pub run: RunArgs,

    /// Steps between two checkpoints
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Checkpoints")]
    pub checkpoint_steps: u64,

    /// Longest time between two checkpoints
    #[arg(long, default_value = "600", value_name = "SECS", value_parser = seconds, help_heading = "Checkpoints")]
    pub checkpoint_secs: Duration,

    /// Number of checkpoints that are kept
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Checkpoints")]
    pub keep_checkpoints: u32,

    /// Drop a worker that has sent no heartbeat or other request for this long
    #[arg(long, default_value = "15", value_name = "SECS", value_parser = seconds, help_heading = "Workers")]
    pub worker_lease_secs: Duration,

    /// Fewer workers than this, for --stall-timeout-secs, end the run for now
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(..=4096), help_heading = "Workers")]
    pub min_workers: u32,

    /// When no gradient comes for this long, write a checkpoint and leave with exit code 75
    #[arg(long, default_value = "1800", value_name = "SECS", value_parser = seconds, help_heading = "Workers")]
    pub stall_timeout_secs: Duration,

    /// Let workers of different devices, instruction sets or libtorch take part: the run then no
    /// longer has the same bits each time
    #[arg(long, env = "CIFAR_MIXED", help_heading = "Workers")]
    pub mixed: bool,

    /// Share of the tower steps that two workers compute, to compare: finds a faulty one
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = fraction, help_heading = "Workers")]
    pub audit_fraction: f64,

    /// Who may connect, and how what travels is protected.
    #[command(flatten)]
    pub guard: GuardArgs,

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,

    /// Ask for no token on the page, which changes nothing.
    #[arg(long, hide = true)]
    pub open_page: bool,

    /// Leave when the process that started this one ends, and with it the pipe that is stdin.
    #[arg(long, hide = true)]
    pub leave_with_parent: bool,

    /// Die at this point of a commit, such as `before-flip@12`: for tests.
    #[arg(long, hide = true, value_name = "POINT@STEP")]
    pub abort_at: Option<AbortAt>,
}

/// A point of the commit of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortAt {
    /// The point.
    pub point: CommitPoint,
    /// The step, counted before its update.
    pub global_step: GlobalStep,
}

impl FromStr for AbortAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (point, step) = text.split_once('@').ok_or("there is no @ in it")?;
        let step = step.parse().map_err(|_| format!("{step:?} is no step"))?;
        Ok(AbortAt {
            point: point.parse()?,
            global_step: GlobalStep(step),
        })
    }
}

/// What can be done instead of serving a run, also while its server runs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// A question, which is answered on stdout.
    #[command(flatten)]
    Ask(Question),
    /// Show the run of a server on the terminal: what each worker does, loss, speed, events
    Top(ServerArgs),

    /// Have a server write a checkpoint now, and print its step
    Checkpoint(ServerArgs),

    /// Have a server complete the step that is under way, begin no other, write a checkpoint and leave:
    /// nothing that workers have computed is lost. They wait for it to be started again. Prints the step
    /// of the checkpoint
    Drain(ServerArgs),

    /// Have a server write a checkpoint of the last complete step and leave at once, as SIGTERM does:
    /// gradients of the step under way are dropped, and computed again after the next start. Workers wait
    /// for that. Prints the step of the checkpoint
    Stop(ServerArgs),

    /// Show a run on a page, also one that is over: its curves, workers, events and pictures
    View {
        /// Folder of the run
        #[arg(long, default_value = DEFAULT_TRAIN_DIR, value_name = "DIR")]
        train_dir: PathBuf,

        /// Address of the page, HOST:PORT; port 0 takes a free one, printed as `http ADDR`
        #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR", value_parser = to_listen_on)]
        http: String,

        /// Who may connect, and how what travels is protected.
        #[command(flatten)]
        guard: GuardArgs,
    },
}

/// Where a server is, and how to show who asks.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Where it is.
    #[command(flatten)]
    pub place: ServerPlace,

    /// How to show it, and to know the server.
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

/// Where a server is: exactly one of these.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct ServerPlace {
    /// Address of the server, HOST:PORT
    #[arg(long, value_name = "ADDR", value_parser = to_connect_to)]
    pub server: Option<String>,

    /// Train dir of the server, if it runs on this machine: its address is there, and cifar-train's token
    #[arg(long, value_name = "DIR")]
    pub train_dir: Option<PathBuf>,
}

impl ServerArgs {
    /// How to show who asks. The token is the one that the launcher keeps in the train dir, where that says
    /// which server is meant and no other token is named.
    #[must_use]
    pub fn credentials(&self) -> CredentialArgs {
        let mut shown = self.credentials.clone();
        let in_train_dir = || self.place.train_dir.as_deref().and_then(token_file_of);
        shown.token_file = shown.token_file.or_else(in_train_dir);
        shown
    }
}

impl ServerPlace {
    /// Where the server is.
    ///
    /// # Errors
    ///
    /// If none runs in the train dir that was given.
    pub fn address(&self) -> anyhow::Result<String> {
        match (&self.server, &self.train_dir) {
            (Some(address), _) => Ok(address.clone()),
            (None, Some(train_dir)) => server_of(train_dir),
            (None, None) => unreachable!("clap demands one of them"),
        }
    }
}

/// What can be asked about a run.
#[derive(Clone, Debug, Subcommand)]
pub enum Question {
    /// Tell how a run went: where the time goes, who is slow, what was dropped and why
    Explain {
        /// Folder of the run
        #[arg(long, default_value = DEFAULT_TRAIN_DIR, value_name = "DIR")]
        train_dir: PathBuf,

        /// Tell of this step instead of the whole run
        #[arg(long, value_name = "N")]
        step: Option<u64>,
    },
    /// Prove that every example of every full epoch was used exactly once; exit code 1 if not
    Verify {
        /// Folder of the run
        #[arg(long, default_value = DEFAULT_TRAIN_DIR, value_name = "DIR")]
        train_dir: PathBuf,
    },
    /// Find the first step in which two runs differ; exit code 1 if there is one
    Diff {
        /// Folder of one run
        #[arg(value_name = "A")]
        train_dir_a: PathBuf,

        /// Folder of the other
        #[arg(value_name = "B")]
        train_dir_b: PathBuf,
    },
}

/// Settings that make a run what it is. In a new run those not given have the defaults; in a train
/// dir that holds a run they have that run's values, and others are refused.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "The run (fixed once it has begun)")]
pub struct RunArgs {
    /// Micro-batches per step, each computed by one worker at a time [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub towers: Option<u32>,

    /// sync: an update takes the gradients of all towers; async: each gradient when it comes, at
    /// variables that others may have moved meanwhile [default: sync]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<UpdateMode>,

    /// With sync, an update takes the first R gradients and drops the others [default: all]
    #[arg(long, env = "CIFAR_REPLICAS_TO_AGGREGATE", value_name = "R", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub replicas_to_aggregate: Option<u32>,

    /// With async, drop a gradient that more updates than this have overtaken [default: 16]
    #[arg(long, env = "CIFAR_MAX_STALENESS", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub max_staleness: Option<u32>,

    /// With async, divide the learning rate by one more than the gradient's staleness
    #[arg(long, env = "CIFAR_SCALE_BY_STALENESS")]
    pub scale_by_staleness: bool,

    /// Examples per tower and step [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: Option<u32>,

    /// Every random choice follows from it [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Begin with the variables, averages and step of this checkpoint instead of random values
    #[arg(long, env = "CIFAR_INIT_FROM", value_name = "CKPT")]
    pub init_from: Option<PathBuf>,

    /// distorted: shuffled, random crop, flip, brightness and contrast; plain: file order, no
    /// distortion [default: distorted]
    #[arg(long, value_name = "KIND")]
    pub input: Option<InputKind>,

    /// cifar10, synthetic or synthetic:N (N training examples drawn by the program) [default:
    /// cifar10]
    #[arg(long, value_name = "SET")]
    pub data: Option<DataSet>,

    /// Learning rate before the first decay [default: 0.1]
    #[arg(long, value_name = "RATE", value_parser = positive_f32)]
    pub learning_rate: Option<f32>,

    /// Epochs between two decays of the learning rate, to a tenth each [default: 350]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub num_epochs_per_decay: Option<f64>,

    /// What those epochs are counted in: steps (of one tower, as the tutorial does) or examples (of
    /// all towers) [default: steps]
    #[arg(long, value_name = "UNIT")]
    pub decay_by: Option<DecayBy>,

    /// Upper limit of the moving averages' decay [default: 0.9999]
    #[arg(long, value_name = "DECAY", value_parser = decay)]
    pub moving_average_decay: Option<f32>,

    /// Kernels of the workers: torch (libtorch's), direct or winograd (this project's, for one
    /// thread of a CPU), or auto, the fastest that the first worker has [default: auto]
    #[arg(long, value_name = "KERNELS")]
    pub kernels: Option<Kernels>,

    /// Threads of each worker on a CPU [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,

    /// Towers of a new run when --towers is not given: the launcher's number of workers.
    #[arg(long, hide = true, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub default_towers: Option<u32>,

    /// Data set of a new run when --data is not given: what the launcher found.
    #[arg(long, hide = true)]
    pub default_data: Option<DataSet>,
}

/// When the variables are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum UpdateMode {
    /// When the gradients of a step are there.
    Sync,
    /// When a gradient comes.
    Async,
}

fn positive_f32(text: &str) -> Result<f32, String> {
    match positive(text)? as f32 {
        number if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("is no number of single precision above 0".to_owned()),
    }
}

fn decay(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if (0.0..1.0).contains(&number) => Ok(number),
        _ => Err("is no number from 0 to below 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_verb_stands_by_itself() {
        let verb = |line: &str| {
            let args = Args::try_parse_from(line.split_whitespace());
            args.map(|args| args.verb)
        };
        assert!(verb("cifar-ps --listen 127.0.0.1:0").unwrap().is_none());
        let explain = verb("cifar-ps explain --train-dir d --step 7").unwrap();
        assert!(matches!(
            explain,
            Some(Verb::Ask(Question::Explain { step: Some(7), .. }))
        ));
        let verify = verb("cifar-ps verify").unwrap();
        assert!(
            matches!(verify, Some(Verb::Ask(Question::Verify { train_dir })) if train_dir.ends_with("default"))
        );
        let view = verb("cifar-ps view --http 127.0.0.1:8080").unwrap();
        assert!(matches!(view, Some(Verb::View { .. })));
        for wrong in [
            "cifar-ps --train-dir d verify",
            "cifar-ps verify --seed 1",
            "cifar-ps diff a",
        ] {
            assert!(verb(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_is_named_by_its_address_or_its_train_dir() {
        for verb in ["top", "checkpoint", "drain", "stop"] {
            let parsed = |flags: &str| {
                let line = format!("cifar-ps {verb} --token-file t {flags}");
                Args::try_parse_from(line.split_whitespace()).map(drop)
            };
            parsed("--server a:1").unwrap();
            parsed("--train-dir d").unwrap();
            assert!(parsed("--server a:1 --train-dir d").is_err());
            let neither = parsed("").unwrap_err().to_string();
            assert!(
                neither.contains("<--server <ADDR>|--train-dir <DIR>>"),
                "{neither}"
            );
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for args in [
            ["--batch-size", "0"],
            ["--towers", "0"],
            ["--learning-rate", "nan"],
            ["--moving-average-decay", "1"],
            ["--checkpoint-secs", "0"],
            ["--worker-lease-secs", "-1"],
            ["--data", "mnist"],
            ["--input", "noisy"],
            ["--mode", "eventually"],
            ["--audit-fraction", "1.5"],
            ["--abort-at", "before-lunch@3"],
        ] {
            assert!(
                Args::try_parse_from(["cifar-ps", args[0], args[1]]).is_err(),
                "{args:?}"
            );
        }
    }
}
