//! The services over real sockets, with one member whose consensus is to apply at once.

mod auth;
mod cluster;
mod gateway;
mod http;
mod kv;
mod lease;
mod maintenance;
mod pings;
mod socket;
mod solo;
mod tls;
mod turns;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use self::solo::Solo;
use super::caller::Login;
use super::client::{Client, connect};
use super::member::{Identity, Member, Settings};
use super::metrics::Metrics;
use super::pb::etcdserverpb as pb;
use crate::store::state::State;

/// Generous: the tests run beside others on small machines.
const PATIENCE: Duration = Duration::from_secs(120);

const IDENTITY: Identity = Identity { cluster: 0xc1, member: 1 };

/// A running server and a client of it.
struct Fixture {
    address: SocketAddr,
    client: Client,
    solo: Arc<Solo>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        Self::serving(settings, None).await
    }

    async fn serving(settings: Settings, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self::knowing(settings, tls, Login::default()).await
    }

    async fn knowing(
        settings: Settings,
        tls: Option<Arc<rustls::ServerConfig>>,
        login: Login,
    ) -> Self {
        let state = Arc::new(State::new());
        let solo = Arc::new(Solo::new(state.clone(), IDENTITY.member));
        let metrics = Arc::new(Metrics::new().unwrap());
        let member =
            Member::new(solo.clone(), state, solo.clone(), IDENTITY, settings, metrics.clone())
                .with_login(login);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(super::serve(
            super::Entrance::to_everything(vec![listener], tls.as_ref()),
            member,
            stop.clone(),
        ));
        let client = connect(&[format!("http://{address}")], None).unwrap();
        Self { address, client, solo, metrics, stop }
    }

    /// A connection for a service that [`Client`] has no part for.
    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let request = put(key, value);
        self.client.kv.clone().put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn delete(&self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest { key: bytes(key), ..Default::default() };
        let answer = self.client.kv.clone().delete_range(request).await.unwrap();
        answer.into_inner().header.unwrap().revision
    }

    async fn compact(&self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: true };
        self.client.kv.clone().compact(request).await.unwrap();
    }
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

/// That a call was refused with this code and text.
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}
