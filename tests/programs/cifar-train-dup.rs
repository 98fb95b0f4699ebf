//! The program `cifar-train`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_train::main()
}
