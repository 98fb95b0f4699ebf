//! The command line of `cifar-train`: its own flags, and those of the server, handed on.

use std::path::PathBuf;

use cifar_data::args::DataArgs;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args as _, CommandFactory, FromArgMatches, Parser};
use pserver_cli::args::without_empty_variables;
use pserver_cli::console::refuse;
use pserver_cli::logging::LogArgs;
use pserver_server::args::RunArgs;
use pserver_wire::data_plane::DataPlane;

use crate::data_choice::DataChoice;
use crate::flags::Flags;

/// Steps of a run when --max-steps is not given: a few minutes on two cores.
const MAX_STEPS: &str = "1000";

/// Train TensorFlow's cifar10 model on this machine: one parameter server, several workers, and a
/// score at the end.
///
/// Started again with the same train dir, the run goes on from its newest checkpoint.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-train", version = pserver_cli::VERSION)]
pub struct Launch {
    /// Number of worker processes [default: one for each core, or for each of --gpus]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,

    /// Compute on this many GPUs: worker k takes GPU k, and further workers share them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub gpus: Option<u32>,

    /// What to train on: cifar10, synthetic, synthetic:N, or auto, which is CIFAR-10 if it is there
    /// or can be downloaded and else the synthetic set
    #[arg(long, value_name = "SET", default_value = "auto")]
    pub data: DataChoice,

    /// How variables and gradients get from process to process: shm is shared memory, wire the
    /// network, auto shm where that works and else wire
    #[arg(long, default_value_t, value_name = "WAY")]
    pub data_plane: DataPlane,

    /// Score checkpoints beside the training, as they are written, and not only the last one
    #[arg(long, conflicts_with = "no_eval")]
    pub eval: bool,

    /// Do not score the last checkpoint
    #[arg(long)]
    pub no_eval: bool,

    /// The server program [default: cifar-ps beside this program]
    #[arg(long, value_name = "FILE", help_heading = "Programs")]
    pub ps_program: Option<PathBuf>,

    /// The worker program [default: cifar-worker beside this program]
    #[arg(long, value_name = "FILE", help_heading = "Programs")]
    pub worker_program: Option<PathBuf>,

    /// The evaluation program [default: cifar-eval beside this program]
    #[arg(long, value_name = "FILE", help_heading = "Programs")]
    pub eval_program: Option<PathBuf>,

    /// The token in this file, which holds nothing else, is asked for and shown by all these programs, and
    /// by browsers (as the password) [default: server.token in the train dir, made for this user alone, and
    /// not asked of browsers]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub token_file: Option<PathBuf>,

    /// Where the data set is.
    #[command(flatten)]
    pub data_args: DataArgs,

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The whole command line.
#[derive(Debug)]
pub struct Args {
    /// The launcher's own flags.
    pub launch: Launch,
    /// The train dir, which the launcher reads too.
    pub train_dir: PathBuf,
    /// The step at which the run is complete.
    pub max_steps: u64,
    /// The server's flags as they were typed.
    pub server_flags: Flags,
    /// The flags of data set and logs as they were typed, for workers and evaluation.
    pub helper_flags: Flags,
    /// Whether a setting of the run was given, or a new run asked for.
    pub names_the_run: bool,
    /// Whether somebody chose which logs to write.
    pub chose_logs: bool,
}

/// What the server's help says differently of itself.
const TOWERS: &str = "Micro-batches per step, each computed by one worker at a time [default: the number of workers]";

/// As [`TOWERS`].
const HTTP: &str = "Show the run as it goes on a page at this address, HOST:PORT, with metrics at /metrics; port 0 \
                    takes a free one. The address is printed as `http ADDR`";

/// Flags of the server that the launcher sets itself, or that are of no use where all is on one machine.
const SET_BY_LAUNCHER: [&str; 10] = [
    "listen",
    "health",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "data",
    "default_towers",
    "default_data",
    "leave_with_parent",
    "open_page",
];

/// The launcher's command line: its own flags, then the server's.
#[must_use]
pub fn command() -> clap::Command {
    let own = Launch::command();
    let is_own = |id: &str| own.get_arguments().any(|arg| arg.get_id() == id);
    let server = server_arguments()
        .filter(|arg| !is_own(arg.get_id().as_str()))
        .map(|arg| match arg.get_id().as_str() {
            "max_steps" => arg.default_value(MAX_STEPS),
            "towers" => arg.help(TOWERS),
            "http" => arg.help(HTTP),
            _ => arg,
        });
    let server: Vec<clap::Arg> = server.collect();
    own.args(server)
}

fn server_arguments() -> impl Iterator<Item = clap::Arg> {
    let arguments: Vec<clap::Arg> = pserver_server::Args::command()
        .get_arguments()
        .cloned()
        .collect();
    arguments
        .into_iter()
        .filter(|arg| !SET_BY_LAUNCHER.contains(&arg.get_id().as_str()))
}

impl Args {
    /// Reads the command line of this process; ends it where that is wrong or asks for help.
    #[must_use]
    pub fn parse() -> Self {
        let matches = without_empty_variables(command()).try_get_matches();
        matches
            .and_then(|matches| Args::from_matches(&matches))
            .unwrap_or_else(|error| refuse(&error))
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let launch = Launch::from_arg_matches(matches)?;
        let typed = |command: clap::Command| typed_flags(command.get_arguments(), matches);
        let server: Vec<clap::Arg> = server_arguments().collect();
        let max_steps: u64 = *matches.get_one("max_steps").expect("it has a default");
        let server_flags =
            typed_flags(server.iter(), matches).set("max-steps", max_steps.to_string());
        let run = RunArgs::augment_args(clap::Command::new("run"));
        let is_set = |arg: &clap::Arg| is_set(arg.get_id().as_str(), matches);
        Ok(Args {
            launch,
            train_dir: matches
                .get_one::<PathBuf>("train_dir")
                .expect("it has a default")
                .clone(),
            max_steps,
            names_the_run: run.get_arguments().any(is_set) || server_flags.contains("fresh"),
            server_flags,
            helper_flags: typed(LogArgs::augment_args(DataArgs::augment_args(
                clap::Command::new("helper"),
            ))),
            chose_logs: matches.value_source("log_level") != Some(ValueSource::DefaultValue),
        })
    }
}

/// Whether somebody gave a value, on the command line or in the environment.
fn is_set(id: &str, matches: &ArgMatches) -> bool {
    matches.try_contains_id(id).unwrap_or(false)
        && matches.value_source(id) != Some(ValueSource::DefaultValue)
}

/// Those of `arguments` that were typed, as another program can be given them. Values from the
/// environment are not repeated: the programs inherit it.
fn typed_flags<'a>(arguments: impl Iterator<Item = &'a clap::Arg>, matches: &ArgMatches) -> Flags {
    let mut flags = Flags::default();
    for arg in arguments {
        let id = arg.get_id().as_str();
        let typed = matches.try_contains_id(id).unwrap_or(false)
            && matches.value_source(id) == Some(ValueSource::CommandLine);
        let Some(long) = arg.get_long().filter(|_| typed) else {
            continue;
        };
        let value = matches.get_raw(id).and_then(|mut values| values.next());
        flags = match (arg.get_action(), value) {
            (ArgAction::Set, Some(value)) => flags.set(long, value),
            _ => flags.switch(long),
        };
    }
    flags
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(line: &str) -> Args {
        Args::from_matches(
            &command()
                .try_get_matches_from(line.split_whitespace())
                .unwrap(),
        )
        .unwrap()
    }

    fn words(flags: &Flags) -> Vec<OsString> {
        flags.words().collect()
    }

    #[test]
    fn only_what_says_something_of_the_run_names_it() {
        for (line, expected) in [
            ("cifar-train", false),
            (
                "cifar-train --max-steps 5 --train-dir d --http 127.0.0.1:0",
                false,
            ),
            ("cifar-train --log-frequency 1 --keep-checkpoints 2", false),
            ("cifar-train --seed 1", true),
            ("cifar-train --fresh", true),
        ] {
            assert_eq!(parse(line).names_the_run, expected, "{line}");
        }
    }

    #[test]
    fn the_help_tells_what_the_launcher_does_with_towers() {
        let help = command().render_long_help().to_string();
        let (_, towers) = help.split_once("--towers <N>").unwrap();
        let (towers, _) = towers.split_once("--").unwrap();
        let towers: Vec<&str> = towers.split_whitespace().collect();
        assert!(
            towers
                .join(" ")
                .ends_with("[default: the number of workers]")
        );
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn the_servers_flags_are_handed_on_as_typed() {
        let args = parse(
            "cifar-train --workers 3 --seed 7 --fresh --max-steps 20 --data-dir d --log-format json",
        );
        assert_eq!(args.launch.workers, Some(3));
        assert_eq!(
            words(&args.server_flags),
            ["--fresh", "--max-steps=20", "--seed=7", "--log-format=json"]
        );
        assert_eq!(
            words(&args.helper_flags),
            ["--data-dir=d", "--log-format=json"]
        );
    }

    #[test]
    fn a_run_is_short_unless_told_otherwise() {
        let args = parse("cifar-train");
        assert_eq!(args.max_steps, 1000);
        assert_eq!(words(&args.server_flags), ["--max-steps=1000"]);
        assert_eq!(args.train_dir, PathBuf::from("runs/default"));
    }

    #[test]
    fn what_the_launcher_sets_cannot_be_typed() {
        assert!(
            command()
                .try_get_matches_from(["cifar-train", "--listen", "127.0.0.1:1"])
                .is_err()
        );
    }
}
