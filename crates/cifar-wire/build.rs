//! Generates the gRPC code from `proto/`, without `protoc`.

use std::error::Error;

const PROTO_DIR: &str = "../../proto";
const PROTO: &str = "cifar/ps/v1/parameter_server.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let descriptors = protox::compile([PROTO], [PROTO_DIR])?;
    // Tensors arrive as views of the received message instead of copies.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
