//! Lets the program find libtorch where it was built against.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relayed by cifar-worker; absent where only documents are built.
    if let Ok(libtorch_lib) = env::var("DEP_CIFAR_WORKER_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch_lib}");
    }
}
