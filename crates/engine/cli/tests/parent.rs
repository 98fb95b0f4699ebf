//! When a program leaves because the one that started it is gone, seen from another process.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use pserver_cli::signals::leave_with_parent;
use rustix::process::Signal;

/// Set in the process that leaves.
const IN_CHILD: &str = "CIFAR_TEST_LEAVES";

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_process_leaves_when_its_parent_is_gone_even_if_it_was_before() {
    if env::var_os(IN_CHILD).is_some() {
        leave_with_parent().unwrap();
        thread::sleep(2 * DEADLINE);
        return;
    }
    let name = "a_process_leaves_when_its_parent_is_gone_even_if_it_was_before";
    for stdin in [Stdio::piped(), Stdio::null()] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name])
            .env(IN_CHILD, "1")
            .stdin(stdin)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        if let Some(lifeline) = child.stdin.take() {
            thread::sleep(Duration::from_millis(200));
            assert_eq!(child.try_wait().unwrap(), None, "it left too early");
            drop(lifeline);
        }
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > DEADLINE {
                child.kill().unwrap();
                panic!("it did not leave");
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    }
}
