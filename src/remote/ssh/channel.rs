//! A logged-in connection, and commands on channels of it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use russh::client::Handle;
use russh::{ChannelMsg, ChannelReadHalf, Pty};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::client::Client;
use crate::remote::RemoteError;
use crate::remote::pipe::{Pipe, Said};

/// Messages of a channel that wait for their reader.
const QUEUE_LENGTH: usize = 64;

/// A terminal that changes no byte and echoes none (RFC 4254, 8).
const RAW: [(Pty, u32); 14] = [
    (Pty::ISTRIP, 0),
    (Pty::INLCR, 0),
    (Pty::IGNCR, 0),
    (Pty::ICRNL, 0),
    (Pty::IXON, 0),
    (Pty::IXANY, 0),
    (Pty::IXOFF, 0),
    (Pty::ISIG, 0),
    (Pty::ICANON, 0),
    (Pty::IEXTEN, 0),
    (Pty::ECHO, 0),
    (Pty::OPOST, 0),
    (Pty::ONLCR, 0),
    (Pty::CS8, 1),
];

/// SSH's number for standard error (RFC 4254, 5.2).
const STANDARD_ERROR: u32 = 1;

/// A connection on which commands can be run. Closed when it and all its pipes are dropped.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) handle: Arc<Handle<Client>>,
    /// Where it leads to.
    pub(super) peer: String,
    /// The host is this machine: then bytes are cheaper than processor time.
    pub(super) near: bool,
    /// The jump host that it leads through, kept open.
    pub(super) _via: Option<Box<Connection>>,
}

impl Connection {
    /// Runs a command line in the login shell on a channel of its own, on a terminal if so. Does not
    /// wait for it to start.
    pub(super) async fn run(&self, command: &str, terminal: bool) -> Result<Pipe, RemoteError> {
        let failed = |error: russh::Error| RemoteError::Unreachable {
            message: format!("{}: cannot open a channel: {error}", self.peer),
            hint: None,
        };
        let channel = self.handle.channel_open_session().await.map_err(failed)?;
        if terminal {
            let (columns, rows) = (80, 24);
            let asked = channel.request_pty(true, "dumb", columns, rows, 0, 0, &RAW).await;
            asked.map_err(failed)?;
        }
        let (from_host, to_host) = channel.split();
        to_host.exec(true, command).await.map_err(failed)?;
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let (said, said_receiver) = watch::channel(Said::default());
        tokio::spawn(carry(from_host, sender, said));
        Ok(Pipe {
            input: Box::new(Box::pin(to_host.make_writer())),
            output: Box::new(StreamReader::new(ReceiverStream::new(receiver))),
            said: said_receiver,
            heard: String::new(),
            _keep: Box::new((self.clone(), to_host)),
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
