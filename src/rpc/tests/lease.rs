//! The Lease service.

use futures::{StreamExt, stream};
use tonic::Code;

use super::{Fixture, assert_refused, bytes, pb, put};
use crate::raft::api::ConsensusError;

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { id, ttl }
}

#[tokio::test]
async fn a_lease_without_a_number_gets_a_positive_one() {
    let fixture = Fixture::new().await;
    let mut lease = fixture.client.lease.clone();
    let granted = lease.lease_grant(grant(0, 60)).await.unwrap().into_inner();
    assert!(granted.id > 0, "{granted:?}");
    assert_eq!((granted.ttl, granted.error.as_str()), (60, ""));
    let listed = lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.leases, [pb::LeaseStatus { id: granted.id }]);
}

#[tokio::test]
async fn a_short_lease_is_made_long_enough_for_an_election() {
    let fixture = Fixture::new().await;
    let mut lease = fixture.client.lease.clone();
    assert_eq!(lease.lease_grant(grant(5, 0)).await.unwrap().into_inner().ttl, 2);
}

#[tokio::test]
async fn grants_are_refused_with_etcds_words() {
    let fixture = Fixture::new().await;
    let mut lease = fixture.client.lease.clone();
    lease.lease_grant(grant(5, 60)).await.unwrap();
    let exists = "etcdserver: lease already exists";
    assert_refused(lease.lease_grant(grant(5, 60)).await, Code::FailedPrecondition, exists);
    let large = "etcdserver: too large lease TTL";
    assert_refused(lease.lease_grant(grant(6, 9_000_000_001)).await, Code::OutOfRange, large);
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_along() {
    let fixture = Fixture::new().await;
    let (mut kv, mut lease) = (fixture.client.kv.clone(), fixture.client.lease.clone());
    lease.lease_grant(grant(5, 60)).await.unwrap();
    kv.put(pb::PutRequest { lease: 5, ..put("a", "1") }).await.unwrap();
    let ask = pb::LeaseTimeToLiveRequest { id: 5, keys: true };
    let view = lease.lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((view.granted_ttl, view.keys), (60, vec![bytes("a")]));

    let revoke = pb::LeaseRevokeRequest { id: 5 };
    let revoked = lease.lease_revoke(revoke).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, 3);
    let read = pb::RangeRequest { key: bytes("a"), ..Default::default() };
    assert_eq!(kv.range(read).await.unwrap().into_inner().count, 0);
    let gone = "etcdserver: requested lease not found";
    assert_refused(lease.lease_revoke(revoke).await, Code::NotFound, gone);
    let view = lease.lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((view.ttl, view.granted_ttl), (-1, 0));
}

#[tokio::test]
async fn renewals_are_answered_in_order_and_unknown_leases_with_zero() {
    let fixture = Fixture::new().await;
    let mut lease = fixture.client.lease.clone();
    lease.lease_grant(grant(5, 60)).await.unwrap();
    let requests = [5, 6, 5].map(|id| pb::LeaseKeepAliveRequest { id });
    let answers = lease.lease_keep_alive(stream::iter(requests)).await.unwrap().into_inner();
    let seen: Vec<_> = answers.map(|answer| answer.map(|a| (a.id, a.ttl)).unwrap()).collect().await;
    assert_eq!(seen, [(5, 60), (6, 0), (5, 60)]);
}

#[tokio::test]
async fn a_renewal_without_a_leader_ends_the_stream() {
    let fixture = Fixture::new().await;
    fixture.solo.fail(Some(ConsensusError::NoLeader));
    let requests = stream::iter([pb::LeaseKeepAliveRequest { id: 5 }]);
    let mut lease = fixture.client.lease.clone();
    let mut answers = lease.lease_keep_alive(requests).await.unwrap().into_inner();
    assert_refused(answers.message().await, Code::Unavailable, "etcdserver: no leader");
}

#[tokio::test]
async fn a_stream_of_renewals_ends_with_the_server() {
    let fixture = Fixture::new().await;
    let mut lease = fixture.client.lease.clone();
    let mut answers = lease.lease_keep_alive(stream::pending()).await.unwrap().into_inner();
    fixture.stop.cancel();
    assert_refused(answers.message().await, Code::Unavailable, "etcdserver: server stopped");
}
