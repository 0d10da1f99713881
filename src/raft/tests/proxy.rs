//! A TCP proxy in front of a member, which can be told whose connections to hold up.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::tls::mark;

/// Pairs of members (from, to) between which nothing passes.
pub(super) type Blocked = watch::Sender<HashSet<(u64, u64)>>;

/// A proxy in front of member `to`.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) upstream: Arc<Mutex<Option<SocketAddr>>>,
}

impl Proxy {
    pub(super) async fn start(to: u64, blocked: Arc<Blocked>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Arc::new(Mutex::new(None));
        let leads_to = upstream.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *leads_to.lock();
                let Some(target) = target else { continue };
                tokio::spawn(relay(client, target, to, blocked.clone()));
            }
        });
        Self { address, upstream }
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, to: u64, blocked: Arc<Blocked>) {
    let mut first = vec![0; 8192];
    let Ok(length) = client.read(&mut first).await else { return };
    let first = &first[..length];
    let says = |from: u64| first.windows(9).any(|window| window == mark(from));
    let from = (0..100).find(|from| says(*from)).unwrap_or(0);
    let open = |blocked: &HashSet<(u64, u64)>| !blocked.contains(&(from, to));
    let wait = async |changes: &mut watch::Receiver<_>| changes.wait_for(open).await.is_ok();
    let mut changes = blocked.subscribe();
    if !wait(&mut changes).await {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if server.write_all(first).await.is_err() {
        return;
    }
    let (mut client_reader, mut client_writer) = client.split();
    let (mut server_reader, mut server_writer) = server.split();
    let there = pump(&mut client_reader, &mut server_writer, changes.clone(), (from, to));
    let back = pump(&mut server_reader, &mut client_writer, changes, (from, to));
    tokio::select! { () = there => {}, () = back => {} }
}

async fn pump(
    reader: &mut (impl AsyncReadExt + Unpin),
    writer: &mut (impl AsyncWriteExt + Unpin),
    mut changes: watch::Receiver<HashSet<(u64, u64)>>,
    pair: (u64, u64),
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length) = reader.read(&mut buffer).await else { return };
        let open = changes.wait_for(|blocked| !blocked.contains(&pair)).await.is_ok();
        if length == 0 || !open || writer.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
