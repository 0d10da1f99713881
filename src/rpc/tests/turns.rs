//! Locks and elections.

use tonic::Code;
use tonic::transport::Channel;

use super::{Fixture, assert_refused, bytes, pb};
use crate::rpc::pb::v3electionpb as election;
use crate::rpc::pb::v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient};
use election::election_client::ElectionClient;

async fn lease(fixture: &Fixture, id: i64) {
    let grant = pb::LeaseGrantRequest { id, ttl: 100 };
    fixture.client.lease.clone().lease_grant(grant).await.unwrap();
}

async fn elections(fixture: &Fixture) -> ElectionClient<Channel> {
    ElectionClient::new(fixture.channel().await)
}

#[tokio::test]
async fn a_lock_is_held_by_one_at_a_time() {
    let fixture = Fixture::new().await;
    let mut client = LockClient::new(fixture.channel().await);
    lease(&fixture, 0x10).await;
    lease(&fixture, 0x20).await;
    let request = |lease| LockRequest { name: bytes("l"), lease };
    let first = client.lock(request(0x10)).await.unwrap().into_inner();
    assert_eq!(first.key, "l/10");
    let again = client.lock(request(0x10)).await.unwrap().into_inner();
    assert_eq!(again.key, "l/10");
    let mut other = client.clone();
    let second = tokio::spawn(async move { other.lock(request(0x20)).await });
    let all = pb::RangeRequest { key: bytes("l/20"), ..Default::default() };
    // The second is in the queue.
    while fixture.client.kv.clone().range(all.clone()).await.unwrap().into_inner().count == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished());
    client.unlock(UnlockRequest { key: first.key }).await.unwrap();
    let second = second.await.unwrap().unwrap().into_inner();
    assert_eq!(second.key, "l/20");
    let unknown = client.lock(LockRequest { name: bytes("m"), lease: 77 }).await;
    assert_refused(unknown, Code::NotFound, "etcdserver: requested lease not found");
    let own = client.lock(LockRequest { name: bytes("m"), lease: 0 }).await.unwrap().into_inner();
    assert!(own.key.starts_with(b"m/"));
}

#[tokio::test]
async fn leaders_are_elected_observed_and_resign() {
    let fixture = Fixture::new().await;
    let mut client = elections(&fixture).await;
    lease(&fixture, 0x10).await;
    lease(&fixture, 0x20).await;
    let name = || election::LeaderRequest { name: bytes("e") };
    assert_refused(client.leader(name()).await, Code::Unknown, "election: no leader");
    let mut observed = client.observe(name()).await.unwrap().into_inner();
    let request = |lease, value: &str| election::CampaignRequest {
        name: bytes("e"),
        lease,
        value: bytes(value),
    };
    let won = client.campaign(request(0x10, "a")).await.unwrap().into_inner().leader.unwrap();
    assert_eq!((&won.key[..], won.lease), (&b"e/10"[..], 0x10));
    let value = |response: Option<election::LeaderResponse>| response.unwrap().kv.unwrap().value;
    assert_eq!(value(observed.message().await.unwrap()), "a");
    let proclaim = election::ProclaimRequest { leader: Some(won.clone()), value: bytes("b") };
    client.proclaim(proclaim).await.unwrap();
    assert_eq!(value(observed.message().await.unwrap()), "b");
    let mut other = client.clone();
    let second = tokio::spawn(async move { other.campaign(request(0x20, "c")).await });
    client.resign(election::ResignRequest { leader: Some(won.clone()) }).await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(value(observed.message().await.unwrap()), "c");
    let late = election::ProclaimRequest { leader: Some(won), value: bytes("d") };
    assert_refused(client.proclaim(late).await, Code::Unknown, "election: not leader");
    let none = client.resign(election::ResignRequest { leader: None }).await;
    assert_refused(none, Code::Unknown, "\"leader\" field must be provided");
    let leader = client.leader(name()).await.unwrap().into_inner();
    assert_eq!(leader.kv.unwrap().value, "c");
}
