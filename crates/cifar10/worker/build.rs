//! Lets the programs find libtorch where they were built, and tells dependents where that is.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Given by torch-sys to those that depend on it directly; absent where only documents are built.
    if let Ok(libtorch_lib) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch_lib}");
        println!("cargo::metadata=libtorch_lib={libtorch_lib}");
    }
    // Beside the programs, for installed copies and images.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
