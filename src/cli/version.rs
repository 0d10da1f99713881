//! `k3sup-rs version`.

use serde::Serialize;

use super::output::{self, Format};
use crate::error::Failure;
use crate::host::protocol::PROTOCOL_VERSION;

/// How to show it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Serialize)]
struct Version {
    #[serde(rename = "version")]
    k3sup_rs: &'static str,
    architecture: &'static str,
    host_protocol: u32,
}

/// Prints the version.
pub fn run(args: &Args) -> Result<(), Failure> {
    let version = Version {
        k3sup_rs: crate::version::own(),
        architecture: std::env::consts::ARCH,
        host_protocol: PROTOCOL_VERSION,
    };
    match args.output {
        Format::Json => output::json(&version),
        Format::Text => output::line(&format!(
            "k3sup-rs {} ({}, host protocol {})",
            version.k3sup_rs, version.architecture, version.host_protocol
        )),
    }
}
