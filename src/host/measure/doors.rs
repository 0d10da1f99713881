//! Listeners for a short while: they greet who comes, so that a probe from another host is answered
//! by this very executor.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::host::protocol::{Door, Opened};

/// Longest that anybody may have listeners.
const TIME_MAX: Duration = Duration::from_secs(120);

/// How long one visitor is kept.
const VISIT_TIME: Duration = Duration::from_secs(5);

/// The listeners of a session; they end with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doors(Arc<Mutex<Option<JoinHandle<()>>>>);

impl Doors {
    /// Opens `wanted` in the place of what was open; one answer for each, in order.
    pub(super) async fn open(&self, wanted: &[Door], greeting: &str, for_ms: u64) -> Vec<Opened> {
        self.close().await;
        let greeting: Arc<str> = greeting.into();
        let mut keepers = JoinSet::new();
        let mut opened = Vec::new();
        for door in wanted {
            opened.push(match open(door, &greeting, &mut keepers).await {
                Ok(()) => Opened::Open,
                Err(error) if error.kind() == ErrorKind::AddrInUse => Opened::Taken,
                Err(error) => Opened::Failed(error.to_string()),
            });
        }
        let time = Duration::from_millis(for_ms).min(TIME_MAX);
        let keeper = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            drop(keepers);
        });
        *self.0.lock() = Some(keeper);
        opened
    }

    /// Closes all; when it returns, the ports are free.
    pub(super) async fn close(&self) {
        let keeper = self.0.lock().take();
        if let Some(keeper) = keeper {
            keeper.abort();
            // Cancelled is what it shall be.
            let _ = keeper.await;
        }
    }
}

async fn open(door: &Door, greeting: &Arc<str>, keepers: &mut JoinSet<()>) -> std::io::Result<()> {
    let at = socket_address(door)?;
    let greeting = Arc::clone(greeting);
    if door.udp {
        let socket = UdpSocket::bind(at).await?;
        keepers.spawn(echo(socket, greeting));
    } else {
        let listener = TcpListener::bind(at).await?;
        keepers.spawn(greet_all(listener, greeting));
    }
    Ok(())
}

/// The address and port of a door.
pub(super) fn socket_address(door: &Door) -> std::io::Result<SocketAddr> {
    let address: Result<IpAddr, _> = door.address.parse();
    let address = address.map_err(|_| {
        std::io::Error::new(ErrorKind::InvalidInput, format!("{:?} is no address", door.address))
    })?;
    Ok(SocketAddr::new(address, door.port))
}

async fn greet_all(listener: TcpListener, greeting: Arc<str>) {
    let mut visits = JoinSet::new();
    loop {
        let Ok((visitor, _)) = listener.accept().await else {
            // Out of files, most likely: a moment later there may be some.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while visits.try_join_next().is_some() {}
        let greeting = Arc::clone(&greeting);
        visits.spawn(async move {
            // A visitor that goes away is none of our business.
            let _ = timeout(VISIT_TIME, greet(visitor, &greeting)).await;
        });
    }
}

/// Says the greeting and waits for the other side to close, so that the port is free at once when
/// the listener is gone.
async fn greet(mut visitor: TcpStream, greeting: &str) -> std::io::Result<()> {
    visitor.write_all(greeting.as_bytes()).await?;
    visitor.write_all(b"\n").await?;
    let mut rest = [0; 64];
    while visitor.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Sends back what is the greeting; anything else has no answer.
async fn echo(socket: UdpSocket, greeting: Arc<str>) {
    let mut buffer = vec![0; 512];
    loop {
        // An error of an earlier datagram may be told here; there will be others.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if buffer.get(..length) == Some(greeting.as_bytes()) {
            let _ = socket.send_to(greeting.as_bytes(), from).await;
        }
    }
}
