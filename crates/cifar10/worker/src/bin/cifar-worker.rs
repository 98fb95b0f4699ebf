//! The program `cifar-worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_worker::worker_main()
}
