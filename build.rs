//! Compiles the protocol buffers of `proto/` to Rust, with protox instead of `protoc`, so that a
//! build needs nothing but Rust and a C compiler.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;

const FILES: [&str; 6] =
    ["rpc.proto", "kv.proto", "auth.proto", "lock.proto", "election.proto", "health.proto"];

/// The packages whose messages have a form in JSON too.
const JSON: [&str; 5] = ["etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb"];

/// Bytes fields become `Bytes`: a key or value is a slice of the buffer it was received in.
fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["proto"])?;
    // JSON has the names of the fields as they stand in `proto/`, as etcd's gateway writes them.
    let mut json = pbjson_build::Builder::new();
    json.preserve_proto_field_names().ignore_unknown_fields().ignore_unknown_enum_variants();
    for file in &descriptors.file {
        json.register_file_descriptor(file.clone());
    }
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::rpc::codec::Lean")
        .include_file("pb.rs")
        .compile_fds(descriptors)?;
    json.build(&JSON.map(|package| format!(".{package}")))?;
    // What reads and writes JSON must stand in the module of its messages.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for package in JSON {
        let mut serde = fs::File::open(out.join(format!("{package}.serde.rs")))?;
        let messages = out.join(format!("{package}.rs"));
        std::io::copy(&mut serde, &mut OpenOptions::new().append(true).open(messages)?)?;
    }
    // `compile_fds` does not know the files.
    for file in FILES {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    Ok(())
}
