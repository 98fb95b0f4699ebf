//! The program `cifar-data`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_data::program::main()
}
