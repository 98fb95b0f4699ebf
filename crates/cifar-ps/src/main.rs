//! The program `cifar-ps`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_ps::main()
}
