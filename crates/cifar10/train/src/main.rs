//! The program `cifar-train`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_train::main()
}
