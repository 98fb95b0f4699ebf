//! The program `cifar-ps`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pserver_server::main(cifar_model::layout())
}
