//! Compiles the protocol buffers of `proto/` to Rust, with protox instead of `protoc`, so that a
//! build needs nothing but Rust and a C compiler.

use std::error::Error;

/// Bytes fields become `Bytes`: a key or value is a slice of the buffer it was received in.
fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["rpc.proto", "kv.proto", "health.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").include_file("pb.rs").compile_fds(descriptors)?;
    // `compile_fds` does not know the files.
    for file in ["rpc.proto", "kv.proto", "health.proto"] {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    Ok(())
}
