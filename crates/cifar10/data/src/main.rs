//! The program `cifar-data`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_data::program::main()
}
