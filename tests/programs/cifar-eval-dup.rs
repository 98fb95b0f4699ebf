//! The program `cifar-eval`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_worker::eval_main()
}
