//! The way to a host's SSH server: TCP, or a channel of the jump host before it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::channel::Connection;
use crate::remote::RemoteError;
use crate::remote::target::{ConnectOptions, Family, ProgressFn, SshTarget};

/// A stream of bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open way.
pub(super) struct Way {
    pub(super) stream: Box<dyn Stream>,
    /// Where it leads to.
    pub(super) peer: String,
    /// The host is this machine: then bytes are cheaper than processor time.
    pub(super) near: bool,
    /// The jump host that it leads through.
    pub(super) via: Option<Connection>,
}

/// How long a connection may take.
pub(super) fn limit(target: &SshTarget, options: &ConnectOptions) -> Duration {
    target.connect_timeout.unwrap_or(options.connect_timeout)
}

/// Opens the way to `target`.
pub(super) async fn dial(
    target: &SshTarget,
    options: &ConnectOptions,
    progress: ProgressFn<'_>,
) -> Result<Way, RemoteError> {
    let limit = limit(target, options);
    let Some(hop) = &target.via else {
        let (stream, peer) = tcp(target, limit).await?;
        let near = peer.ip().is_loopback();
        return Ok(Way { stream: Box::new(stream), peer: peer.to_string(), near, via: None });
    };
    let via = options.hops.connection(hop, options, progress).await?;
    let through = |reason: &str| {
        let hop = format!("through jump host {}: {reason}", hop.address);
        unreachable(target, &hop, Some("can the jump host reach it, and does it allow forwarding?"))
    };
    let port = u32::from(target.port);
    // The last two are who asks: nobody, as from `ssh -W`.
    let open = via.handle.channel_open_direct_tcpip(&target.address, port, "127.0.0.1", 0);
    let channel = match timeout(limit, open).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Err(through(&error.to_string())),
        Err(_) => return Err(through(&format!("no answer in {} s", limit.as_secs_f32()))),
    };
    Ok(Way {
        stream: Box::new(channel.into_stream()),
        peer: format!("{}:{}", target.address, target.port),
        near: false,
        via: Some(via),
    })
}

/// The first of the host's addresses that accepts.
async fn tcp(target: &SshTarget, limit: Duration) -> Result<(TcpStream, SocketAddr), RemoteError> {
    let look_up = tokio::net::lookup_host((target.address.as_str(), target.port));
    let addresses: Vec<SocketAddr> = match timeout(limit, look_up).await {
        Ok(Ok(addresses)) => addresses.filter(|address| fits(*address, target.family)).collect(),
        Ok(Err(error)) => {
            let reason = format!("its name has no address: {error}");
            return Err(unreachable(target, &reason, Some("check ansible_host")));
        }
        Err(_) => return Err(unreachable(target, "its name is not resolved in time", None)),
    };
    let mut reason = "its name has no address".to_owned();
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Latency is the cost of a frame protocol; without it a round trip still works.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => reason = format!("no answer in {} s", limit.as_secs_f32()),
        }
    }
    Err(unreachable(target, &reason, Some("is the host up, and does sshd listen there?")))
}

fn fits(address: SocketAddr, family: Family) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    }
}

/// No connection to `target`.
pub(super) fn unreachable(target: &SshTarget, reason: &str, hint: Option<&str>) -> RemoteError {
    let SshTarget { address, port, .. } = target;
    let place = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    RemoteError::Unreachable {
        message: format!("cannot connect to {place}: {reason}"),
        hint: hint.map(str::to_owned),
    }
}
