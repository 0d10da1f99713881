//! A logged-in connection, and commands on channels of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use russh::client::Handle;
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::client::Client;
use crate::remote::RemoteError;
use crate::remote::pipe::{Pipe, Said};

/// Messages of a channel that wait for their reader.
const QUEUE_LENGTH: usize = 64;

/// SSH's number for standard error (RFC 4254, 5.2).
const STANDARD_ERROR: u32 = 1;

/// A connection on which commands can be run. Closed when it and all its pipes are dropped.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) handle: Arc<Handle<Client>>,
    pub(super) peer: SocketAddr,
}

impl Connection {
    /// Whether the host is this machine: then bytes are cheaper than processor time.
    pub(super) fn is_loopback(&self) -> bool {
        self.peer.ip().is_loopback()
    }

    /// Runs a command line in the login shell on a channel of its own. Does not wait for it to
    /// start.
    pub(super) async fn run(&self, command: &str) -> Result<Pipe, RemoteError> {
        let failed = |error: russh::Error| RemoteError::Unreachable {
            message: format!("{}: cannot open a channel: {error}", self.peer),
            hint: None,
        };
        let channel = self.handle.channel_open_session().await.map_err(failed)?;
        let (from_host, to_host) = channel.split();
        to_host.exec(true, command).await.map_err(failed)?;
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let (said, said_receiver) = watch::channel(Said::default());
        tokio::spawn(carry(from_host, sender, said));
        Ok(Pipe {
            input: Box::new(Box::pin(to_host.make_writer())),
            output: Box::new(StreamReader::new(ReceiverStream::new(receiver))),
            said: said_receiver,
            _keep: Box::new((Arc::clone(&self.handle), to_host)),
        })
    }
}

/// Sorts a channel's messages until it ends. Messages must be taken off all the time: a queue that
/// is full stops the whole connection.
async fn carry(
    mut from_host: ChannelReadHalf,
    output: mpsc::Sender<io::Result<Bytes>>,
    said: watch::Sender<Said>,
) {
    let mut output = Some(output);
    while let Some(message) = from_host.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(sender) = &output
                    && sender.send(Ok(data)).await.is_err()
                {
                    // Nobody reads any more.
                    output = None;
                }
            }
            ChannelMsg::ExtendedData { data, ext: STANDARD_ERROR } => {
                said.send_modify(|said| said.add(&data));
            }
            ChannelMsg::Eof => output = None,
            ChannelMsg::ExitStatus { exit_status } => {
                said.send_modify(|said| said.status = Some(exit_status));
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                said.send_modify(|said| {
                    said.add(format!("\nended by signal {signal_name:?}").as_bytes());
                    said.status = Some(128);
                });
            }
            ChannelMsg::Failure => {
                said.send_modify(|said| said.add(b"\nthe server refuses to run commands"));
                output = None;
            }
            _ => {}
        }
    }
}
