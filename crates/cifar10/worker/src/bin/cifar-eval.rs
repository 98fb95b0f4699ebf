//! The program `cifar-eval`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_worker::eval_main()
}
