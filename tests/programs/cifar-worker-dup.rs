//! The program `cifar-worker`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_worker::worker_main()
}
