//! `k3sup-rs host`, hidden: the executor on a host, run by the control machine at the far end of a
//! channel.

use tokio::io::AsyncWriteExt as _;

use crate::error::{ExitCode, Failure};
use crate::host::{self, Host};

/// Arguments of the executor. None is for people.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// SHA-256 of this binary in hex, as who starts it has just verified
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// A line printed before the first message, to tell it from what login scripts print
    #[arg(long, value_name = "TEXT")]
    marker: Option<String>,
}

/// Answers requests on standard input until it ends.
pub async fn run(args: Args) -> Result<(), Failure> {
    // Whatever it makes is private until its mode is set.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // On a terminal, a link that is cut is a hang-up: what is under way is done to its end, as it is
    // without a terminal, so that nothing is left in the middle.
    let _kept = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
    let mut output = tokio::io::stdout();
    let greeted = async {
        if let Some(marker) = &args.marker {
            output.write_all(format!("{marker}\n").as_bytes()).await?;
            output.flush().await?;
        }
        host::serve(&Host::detect(args.sha256), tokio::io::stdin(), output).await
    };
    greeted
        .await
        .map_err(|error| Failure::new(ExitCode::Error, format!("the caller was lost: {error}")))
}
