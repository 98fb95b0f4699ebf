//! The program `cifar-ps`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    pserver_server::main(cifar_model::layout())
}
