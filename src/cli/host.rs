//! `k3sup-rs host`, hidden: the executor on a host, run by the control machine at the far end of a
//! channel.

use std::io::Read as _;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

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

/// Bytes that are taken off standard input at once, at most.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// Standard input, read ahead by a thread of its own, so that a long file does not wait at each piece
/// until somebody asks for the next.
fn input() -> impl tokio::io::AsyncRead + Unpin {
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = match input.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read,
            };
            let ended = matches!(read, Ok(0) | Err(_));
            let read = read.map(|length| {
                chunk.truncate(length);
                Bytes::from(chunk)
            });
            // Who does not listen any more has ended.
            if sender.blocking_send(read).is_err() || ended {
                return;
            }
        }
    });
    StreamReader::new(ReceiverStream::new(receiver))
}

/// Answers requests on standard input until it ends.
pub async fn run(args: Args) -> Result<(), Failure> {
    // For the programs that tasks run, which make files as at any administrator's prompt, whatever the
    // login's umask. What the executor itself makes has an explicit mode from birth.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // On a terminal, a link that is cut is a hang-up: what is under way is done to its end, as it is
    // without a terminal, so that nothing is left in the middle.
    let _kept = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
    let mut output = tokio::io::stdout();
    let greeted = async {
        if let Some(marker) = &args.marker {
            output.write_all(format!("{marker}\n").as_bytes()).await?;
            output.flush().await?;
        }
        host::serve(&Host::detect(args.sha256), input(), output).await
    };
    greeted
        .await
        .map_err(|error| Failure::new(ExitCode::Error, format!("the caller was lost: {error}")))
}
