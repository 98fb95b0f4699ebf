//! Generates the gRPC code from `proto/`, without `protoc`.
//!
//! Pull and Push are left out: their bodies carry tensors, and are written and read by `framing` instead.

use std::error::Error;

const PROTO_DIR: &str = "../../../proto";
const PROTO: &str = "pserver/v1/parameter_server.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let mut descriptors = protox::compile([PROTO], [PROTO_DIR])?;
    let services = descriptors
        .file
        .iter_mut()
        .flat_map(|file| &mut file.service);
    for service in services {
        service
            .method
            .retain(|method| !matches!(method.name(), "Pull" | "Push"));
    }
    // Tensors arrive as views of the received message instead of copies.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
