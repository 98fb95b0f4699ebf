//! A run on the terminal.

use pserver_cli::exit::Exit;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::program::{Program, SERVER, command, eventually};
use crate::terminal::Terminal;

fn top(server: &str) -> Terminal {
    let mut command = command(SERVER);
    Terminal::start(command.args(["top", "--server", server]), 110, 36)
}

/// The terminal shows its own screen, and keys go to programs as before.
#[track_caller]
fn assert_is_persons_again(terminal: &Terminal) {
    eventually("the person's own screen", || {
        (!terminal.is_programs_own()).then_some(())
    });
    assert!(terminal.takes_whole_lines());
}

#[test]
fn a_run_is_shown_until_somebody_leaves_and_the_terminal_is_as_before() {
    let mut cluster = Cluster::builder().workers(2).max_steps(1_000_000).start();
    cluster.wait_for_step(10);
    for key in [&b"q"[..], b"\x03", b"\x1b"] {
        let mut top = top(&cluster.server.address);
        for text in [
            "synthetic:512",
            "workers",
            "examples/s",
            "loss",
            "joined",
            "█",
        ] {
            top.wait_until_seen(text);
        }
        top.press(key);
        assert_eq!(top.wait(), Exit::Complete);
        assert_is_persons_again(&top);
    }
    let mut top = top(&cluster.server.address);
    top.wait_until_seen("workers");
    top.signal(Signal::TERM);
    assert_eq!(top.wait(), Exit::Terminated);
    assert_is_persons_again(&top);
}

#[test]
fn the_run_of_a_train_dir_is_shown() {
    let cluster = Cluster::builder().workers(0).start();
    let mut top = command(SERVER);
    let top = top.args(["top", "--train-dir"]).arg(cluster.train_dir());
    let mut top = Terminal::start(top, 110, 36);
    top.wait_until_seen("synthetic:512");
    top.press(b"q");
    assert_eq!(top.wait(), Exit::Complete);
}

#[test]
fn a_server_that_is_killed_is_found_again() {
    let mut cluster = Cluster::builder().max_steps(1_000_000).start();
    cluster.wait_for_step(3);
    let mut top = top(&cluster.server.address);
    top.wait_until_seen("trains");
    cluster.server.program.kill();
    top.wait_until_seen("away");
    cluster.start_server_again();
    top.wait_until_seen("a server started");
    top.press(b"q");
    assert_eq!(top.wait(), Exit::Complete);
}

#[test]
fn without_a_terminal_or_a_server_it_says_so() {
    let mut piped = Program::start(command(SERVER).args(["top", "--server", "127.0.0.1:1"]));
    assert_eq!(piped.wait(), Exit::Usage);
    piped.assert_said("top draws on a terminal, and stdin or stdout is none");
    assert_eq!(piped.stdout(), "");

    let mut dumb = Terminal::start_as(
        "dumb",
        command(SERVER).args(["top", "--server", "127.0.0.1:1"]),
        80,
        24,
    );
    assert_eq!(dumb.wait(), Exit::Usage);
    assert!(dumb.everything().contains("TERM names one"));

    let mut top = top("127.0.0.1:1");
    assert_eq!(top.wait(), Exit::TryAgain);
    top.wait_until_seen("there is no run to see at 127.0.0.1:1");
    assert_is_persons_again(&top);
}
