//! Command lines, right and wrong.

use cifar_cli::exit::Exit;

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
    let cases: [(&str, &[&str], &str); 14] = [
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
