//! Command lines, right and wrong.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory};
use pserver_cli::exit::Exit;

use crate::program::{EVAL, LAUNCHER, Program, SERVER, WORKER, command};

const PROGRAMS: [(&str, &str); 4] = [
    ("cifar-ps", SERVER),
    ("cifar-worker", WORKER),
    ("cifar-eval", EVAL),
    ("cifar-train", LAUNCHER),
];

fn run(program: &str, flags: &[&str]) -> (Exit, Program) {
    let mut program = Program::start(command(program).args(flags));
    (program.wait(), program)
}

#[test]
fn bad_flags_explain_themselves() {
    let cases: [(&str, &[&str], &str); 19] = [
        (
            SERVER,
            &["--worker-lease-secs", "1e19"],
            "a time is a number",
        ),
        (SERVER, &["--listen", "http://a:1"], "'--listen <ADDR>'"),
        (SERVER, &["view", "--http", "8080"], "'--http <ADDR>'"),
        (SERVER, &["explain", "--step=-1"], "'--step <N>'"),
        (
            WORKER,
            &["--data-url", "file:///x"],
            "neither http nor https",
        ),
        (SERVER, &["--towers", "0"], "'--towers <N>'"),
        (SERVER, &["--batch-size", "many"], "'--batch-size <N>'"),
        (SERVER, &["--learning-rate", "nan"], "is no number above 0"),
        (SERVER, &["--data", "mnist"], "there are cifar10, synthetic"),
        (SERVER, &["--bacth-size", "8"], "'--batch-size'"),
        (WORKER, &["--gpu", "first"], "'--gpu <K>'"),
        (WORKER, &["--batch-size", "8"], "'--batch-size'"),
        (WORKER, &["--data-sha256", "12"], "'--data-sha256 <HEX>'"),
        (WORKER, &["--data-plane", "pigeon"], "auto, wire and shm"),
        (EVAL, &["--eval-data", "train"], "test, train_eval"),
        (EVAL, &["--num-examples", "0"], "'--num-examples <N>'"),
        (
            EVAL,
            &["--server", "a:1", "--eval-dir", "d"],
            "'--eval-dir <DIR>'",
        ),
        (LAUNCHER, &["--workers", "0"], "'--workers <N>'"),
        (LAUNCHER, &["--listen", "127.0.0.1:1"], "'--listen'"),
    ];
    for (program, flags, words) in cases {
        let (exit, program) = run(program, flags);
        assert_eq!(exit, Exit::Usage, "{flags:?}");
        program.assert_said(words);
        program.assert_said("--help");
        assert_eq!(program.stdout(), "");
    }
}

#[test]
fn a_filter_of_logs_that_is_none_is_wrong_usage() {
    for (name, program) in PROGRAMS {
        let (exit, program) = run(program, &["--log-level", "="]);
        assert_eq!(exit, Exit::Usage, "{name}");
        program.assert_said(&format!("{name}: --log-level \"=\" is no filter of logs"));
    }
}

#[test]
fn every_program_tells_its_version_and_commit() {
    for (name, program) in PROGRAMS {
        let (exit, program) = run(program, &["--version"]);
        assert_eq!(exit, Exit::Complete);
        let version = program.stdout();
        let commit = version
            .strip_prefix(&format!("{name} {} (", env!("CARGO_PKG_VERSION")))
            .and_then(|rest| rest.strip_suffix(")\n"));
        let is_commit = commit.is_some_and(|commit| {
            commit == "unknown commit" || commit.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        assert!(is_commit, "{version}");
    }
}

#[test]
fn every_program_explains_itself() {
    for (name, program) in PROGRAMS {
        let (exit, program) = run(program, &["--help"]);
        assert_eq!(exit, Exit::Complete);
        let help = program.stdout();
        assert!(help.contains(&format!("Usage: {name}")), "{help}");
        assert!(help.contains("--log-format"), "{help}");
    }
}

/// A flag of a program or one of its verbs, with the words that come before it.
struct Flag {
    program: Command,
    words: Vec<String>,
    arg: Arg,
}

impl Flag {
    /// `FLAG=VALUE` after what leads to it.
    fn with(&self, value: impl Into<OsString>) -> Vec<OsString> {
        let mut flag = OsString::from(self.to_string());
        flag.push("=");
        flag.push(value.into());
        let words = self.words.iter().map(OsString::from);
        words.chain([flag]).collect()
    }

    /// Whether its value is refused, and the flag named.
    fn refuses(&self, value: impl Into<OsString>) -> bool {
        let parsed = self.program.clone().try_get_matches_from(self.with(value));
        parsed.is_err_and(|error| {
            let kind = error.kind();
            // An empty value can be of another kind: it is as if there were none.
            let is_of_value = matches!(kind, ErrorKind::ValueValidation | ErrorKind::InvalidValue);
            assert!(
                !is_of_value || error.to_string().contains(&self.to_string()),
                "{error}"
            );
            assert!(!is_of_value || error.exit_code() == Exit::Usage as i32);
            is_of_value || kind == ErrorKind::InvalidUtf8
        })
    }

    #[track_caller]
    fn assert_refuses(&self, values: &[&str]) {
        for value in values {
            assert!(self.refuses(value), "{:?}", self.with(value));
        }
    }
}

impl std::fmt::Display for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--{}", self.arg.get_long().unwrap())
    }
}

/// All flags of all programs that have values called `name`.
fn flags_with(name: &str) -> Vec<Flag> {
    let mut flags = Vec::new();
    for program in [
        pserver_server::Args::command(),
        cifar_worker::worker_program::Args::command(),
        cifar_worker::eval_program::Args::command(),
        cifar_train::args::command(),
        cifar_data::program::Args::command(),
        cifar_bench::program::Args::command(),
    ] {
        collect(&program, &program, &[], &mut flags);
    }
    flags.retain(|flag| {
        let names = flag.arg.get_value_names().unwrap_or_default();
        names.iter().any(|of_flag| of_flag.as_str() == name)
    });
    flags
}

fn collect(program: &Command, of: &Command, words: &[String], flags: &mut Vec<Flag>) {
    let words = [words, &[of.get_name().to_owned()]].concat();
    for arg in of.get_arguments() {
        let takes_value = arg.get_action().takes_values() && arg.get_long().is_some();
        flags.extend(takes_value.then(|| Flag {
            program: program.clone(),
            words: words.clone(),
            arg: arg.clone(),
        }));
    }
    for verb in of.get_subcommands() {
        collect(program, verb, &words, flags);
    }
}

#[test]
fn a_time_is_one_that_can_be_waited_for() {
    let flags = flags_with("SECS");
    let is_there = |name| flags.iter().any(|flag| flag.to_string() == name);
    assert!(is_there("--worker-lease-secs") && is_there("--eval-interval-secs"));
    for flag in flags {
        flag.assert_refuses(&[
            "0", "-1", "nan", "inf", "1e19", "1e400", "1e-300", "5s", "x", "",
        ]);
        assert!(!flag.refuses("0.5") && !flag.refuses("1e9"), "{flag}");
    }
}

#[test]
fn every_flag_of_a_time_says_that_it_is_one() {
    for name in ["N", "R", "K", "RATE", "SHARE", "DECAY"] {
        for flag in flags_with(name) {
            let name = flag.to_string();
            assert!(
                !name.ends_with("secs") && !name.ends_with("seconds"),
                "{name}"
            );
        }
    }
}

#[test]
fn a_count_is_one_that_can_be_counted_to() {
    /// None of them makes sense.
    const MAY_BE_NONE: [&str; 8] = [
        "--gpu",
        "--log-frequency",
        "--max-staleness",
        "--max-steps",
        "--min-workers",
        "--seed",
        "--step",
        "--summary-steps",
    ];
    /// Only compared with another number.
    const MAY_BE_ANY: [&str; 8] = [
        "--checkpoint-steps",
        "--gpu",
        "--log-frequency",
        "--max-steps",
        "--num-epochs-per-decay",
        "--seed",
        "--step",
        "--summary-steps",
    ];
    for name in ["N", "R", "K"] {
        for flag in flags_with(name) {
            let name = flag.to_string();
            flag.assert_refuses(&["-1", "nan", "x", "1 000", ""]);
            assert_eq!(flag.refuses("0"), !MAY_BE_NONE.contains(&&*name), "{name}");
            for large in ["4000000000", "18446744073709551615"] {
                assert_eq!(flag.refuses(large), !MAY_BE_ANY.contains(&&*name), "{name}");
            }
        }
    }
}

#[test]
fn other_numbers_are_finite_and_of_their_range() {
    for name in ["RATE", "SHARE", "DECAY"] {
        let flags = flags_with(name);
        assert!(!flags.is_empty());
        for flag in flags {
            flag.assert_refuses(&["-1", "nan", "inf", "1e400", "0,1", "10%", "x", ""]);
            if name != "RATE" {
                flag.assert_refuses(&["1.1"]);
            }
        }
    }
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let flags = flags_with("ADDR");
    assert!(flags.len() >= 10);
    for flag in flags {
        flag.assert_refuses(&[
            "",
            "2222",
            "localhost",
            ":2222",
            "::1:2222",
            "http://localhost:2222",
            "localhost:65536",
            "localhost:http",
            "local host:2222",
            "localhost:2222 ",
        ]);
        let is_client = flag.to_string() == "--server";
        assert_eq!(flag.refuses("localhost:0"), is_client, "{flag}");
        assert!(!flag.refuses("[::1]:2222"), "{flag}");
    }
}

/// Whatever it is: the parsers take it or refuse it, and do not panic.
#[test]
fn hostile_values_are_refused_or_taken() {
    let bytes = OsString::from_vec(b"\xff\xfe=\x80".to_vec());
    let long = OsString::from("9".repeat(1 << 20));
    for name in ["SECS", "N", "R", "K", "RATE", "SHARE", "DECAY", "ADDR"] {
        for flag in flags_with(name) {
            assert!(flag.refuses(&bytes), "{flag}");
            assert!(flag.refuses(&long), "{flag}");
        }
    }
    for name in [
        "SET", "URL", "HEX", "FILTER", "KIND", "MODE", "KERNELS", "WAY",
    ] {
        for flag in flags_with(name) {
            assert!(flag.refuses(&bytes), "{flag}");
        }
    }
}

#[test]
fn variables_that_are_empty_are_as_if_they_were_not_set() {
    let nothing = tempfile::tempdir().unwrap();
    let path = nothing.path().to_str().unwrap();
    let server = ["--server", "127.0.0.1:1", "--retry-window-secs", "0.001"];
    for (program, flags) in [
        (EVAL, vec!["--run-once", "--checkpoint-dir", path]),
        (WORKER, server.to_vec()),
        (
            SERVER,
            vec![
                "--listen",
                "127.0.0.1:0",
                "--train-dir",
                path,
                "--max-steps",
                "1",
                "--stall-timeout-secs",
                "0.01",
            ],
        ),
    ] {
        let mut command = command(program);
        command
            .args(flags)
            .env("CIFAR10_DATA_DIR", "")
            .env("RUST_LOG", "");
        let mut program = Program::start(&mut command);
        assert_eq!(program.wait(), Exit::TryAgain);
    }
    let mut launcher = command(LAUNCHER);
    launcher
        .args(["--ps-program", path])
        .env("CIFAR10_DATA_DIR", "");
    assert_eq!(Program::start(&mut launcher).wait(), Exit::Permanent);
}

#[test]
fn an_address_of_a_server_that_is_none_is_refused_at_once() {
    for (program, flags) in [
        (WORKER, vec!["--server=http://127.0.0.1:2222"]),
        (EVAL, vec!["--server=http://127.0.0.1:2222"]),
        (SERVER, vec!["top", "--server=http://127.0.0.1:2222"]),
        (SERVER, vec!["stop", "--server=http://127.0.0.1:2222"]),
    ] {
        let (exit, program) = run(program, &flags);
        assert_eq!(exit, Exit::Usage, "{flags:?}");
        program.assert_said("scheme");
        program.assert_said("HOST:PORT");
    }
}
