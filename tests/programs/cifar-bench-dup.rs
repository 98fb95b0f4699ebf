//! The program `cifar-bench`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    cifar_bench::main()
}
