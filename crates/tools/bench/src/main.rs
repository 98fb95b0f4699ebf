//! The program cifar-bench.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_bench::main()
}
