//! The Maintenance and the health service.

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use tonic::Code;
use tonic::transport::Endpoint;

use super::{Fixture, assert_refused, pb};
use crate::rpc::pb::grpc::health::v1 as health;
use health::health_client::HealthClient;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction as Action;

fn alarm(action: AlarmAction, kind: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), member_id: 1, alarm: kind.into() }
}

#[tokio::test]
async fn status_tells_how_the_member_stands() {
    let fixture = Fixture::new().await;
    fixture.put("a", "1").await;
    let mut maintenance = fixture.client.maintenance.clone();
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.version, "3.5.30");
    assert_eq!((status.leader, status.raft_term, status.raft_applied_index), (1, 3, 2));
    assert_eq!((status.db_size, status.is_learner), (4096, false));
    assert!(status.errors.is_empty() && status.db_size_in_use > 0);
    fixture.solo.change_status(|status| status.leader = None);
    let raise = alarm(AlarmAction::Activate, pb::AlarmType::Nospace);
    maintenance.alarm(raise).await.unwrap();
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["etcdserver: no leader", "memberID:1 alarm:NOSPACE "]);
}

#[tokio::test]
async fn alarms_are_raised_listed_and_cleared() {
    let fixture = Fixture::new().await;
    let mut maintenance = fixture.client.maintenance.clone();
    let mut ask = async |action, kind| {
        maintenance.alarm(alarm(action, kind)).await.unwrap().into_inner().alarms
    };
    let (none, full) = (pb::AlarmType::None, pb::AlarmType::Nospace);
    let raised = [pb::AlarmMember { member_id: 1, alarm: full.into() }];
    assert_eq!(ask(AlarmAction::Deactivate, full).await, []);
    assert_eq!(ask(AlarmAction::Activate, full).await, raised);
    assert_eq!(ask(AlarmAction::Get, none).await, raised);
    assert_eq!(ask(AlarmAction::Get, pb::AlarmType::Corrupt).await, []);
    assert_eq!(ask(AlarmAction::Deactivate, full).await, raised);
    assert_eq!(ask(AlarmAction::Get, none).await, []);
}

#[tokio::test]
async fn a_snapshot_is_padded_and_ends_with_its_checksum() {
    for length in [0, 10, 1024, 300_000] {
        let fixture = Fixture::new().await;
        let content = vec![7; length];
        fixture.solo.snapshot.lock().clone_from(&content);
        let mut maintenance = fixture.client.maintenance.clone();
        let messages = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
        let messages: Vec<pb::SnapshotResponse> = messages.try_collect().await.unwrap();
        let (last, body) = messages.split_last().unwrap();
        let mut left = length.next_multiple_of(512);
        for message in body {
            left -= message.blob.len();
            assert_eq!(message.remaining_bytes, left as u64);
        }
        let body: Vec<u8> = body.iter().flat_map(|message| message.blob.to_vec()).collect();
        assert_eq!((left, body.len() % 512), (0, 0));
        assert_eq!(body[..length], content);
        assert!(body[length..].iter().all(|byte| *byte == 0));
        assert_eq!(last.blob, Sha256::digest(&body).to_vec());
        assert_eq!(last.remaining_bytes, 0);
    }
}

#[tokio::test]
async fn hashes_are_of_a_revision() {
    let fixture = Fixture::new().await;
    fixture.put("a", "1").await;
    let mut maintenance = fixture.client.maintenance.clone();
    let ask = |revision| pb::HashKvRequest { revision };
    let early = maintenance.hash_kv(ask(0)).await.unwrap().into_inner();
    assert_eq!((early.hash_revision, early.compact_revision), (2, -1));
    fixture.put("a", "2").await;
    let now = maintenance.hash_kv(ask(0)).await.unwrap().into_inner();
    assert_ne!(now.hash, early.hash);
    assert_eq!(maintenance.hash_kv(ask(2)).await.unwrap().into_inner().hash, early.hash);
    let hash = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner();
    assert_eq!((hash.hash, hash.header.unwrap().revision), (now.hash, 3));
    fixture.compact(3).await;
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(maintenance.hash_kv(ask(2)).await, Code::OutOfRange, compacted);
    let future = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(maintenance.hash_kv(ask(9)).await, Code::OutOfRange, future);
}

#[tokio::test]
async fn leadership_moves_to_a_voter_only() {
    let fixture = Fixture::new().await;
    fixture.solo.change_status(|status| status.voters.push(2));
    let mut maintenance = fixture.client.maintenance.clone();
    let to = |target_id| pb::MoveLeaderRequest { target_id };
    let bad = "etcdserver: bad leader transferee";
    assert_refused(maintenance.move_leader(to(3)).await, Code::FailedPrecondition, bad);
    let moved = maintenance.move_leader(to(2)).await.unwrap();
    assert_eq!(moved.into_inner().header, None, "as in etcd");
    let not = "etcdserver: not leader";
    assert_refused(maintenance.move_leader(to(1)).await, Code::FailedPrecondition, not);
}

#[tokio::test]
async fn a_clean_store_is_defragmented_at_once() {
    let fixture = Fixture::new().await;
    let mut maintenance = fixture.client.maintenance.clone();
    let answer = maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    assert_eq!(answer.into_inner().header, None, "as in etcd");
}

#[tokio::test]
async fn the_health_service_knows_the_server_as_a_whole() {
    let fixture = Fixture::new().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", fixture.address)).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let ask = |service: &str| health::HealthCheckRequest { service: service.into() };
    let serving = health::health_check_response::ServingStatus::Serving;
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status(), serving);
    assert_refused(client.check(ask("x")).await, Code::NotFound, "unknown service");
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), serving);
}

#[tokio::test]
async fn a_service_that_is_left_out_is_unimplemented() {
    let fixture = Fixture::new().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", fixture.address)).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/nobody.Knows/It");
    let answer = grpc.unary(tonic::Request::new(pb::StatusRequest {}), path, codec).await;
    assert_refused(answer, Code::Unimplemented, "unknown service nobody.Knows");
}

#[tokio::test]
async fn a_downgrade_is_checked_recorded_and_taken_back() {
    let fixture = Fixture::new().await;
    let mut maintenance = fixture.client.maintenance.clone();
    let mut ask = async |action: Action, version: &str| {
        let request = pb::DowngradeRequest { action: action.into(), version: version.to_owned() };
        maintenance.downgrade(request).await.map(|answer| answer.into_inner().version)
    };
    let (invalid, failed) = (Code::InvalidArgument, Code::FailedPrecondition);
    let format = "etcdserver: wrong downgrade target version format";
    let target = "etcdserver: invalid downgrade target version";
    let none = "etcdserver: no inflight downgrade job";
    let standing = "etcdserver: cluster has a downgrade job in progress";
    for action in [Action::Validate, Action::Enable] {
        assert_refused(ask(action, "3").await, invalid, format);
        assert_refused(ask(action, "3.5.0").await, invalid, target);
        assert_refused(ask(action, "3.3").await, invalid, target);
    }
    assert_refused(ask(Action::Cancel, "").await, failed, none);
    assert_eq!(ask(Action::Validate, "3.4").await.unwrap(), "3.5.0");
    assert_eq!(ask(Action::Enable, "3.4.7").await.unwrap(), "3.5.0");
    assert_refused(ask(Action::Enable, "3.4").await, failed, standing);
    assert_refused(ask(Action::Validate, "3.4").await, failed, standing);
    assert_refused(ask(Action::Validate, "3.5").await, invalid, target);
    assert_eq!(ask(Action::Cancel, "anything").await.unwrap(), "3.5.0");
    assert_refused(ask(Action::Cancel, "").await, failed, none);
    assert_eq!(ask(Action::Validate, "3.4").await.unwrap(), "3.5.0");
    let unknown = pb::DowngradeRequest { action: 7, version: "3.4".to_owned() };
    let refused = maintenance.downgrade(unknown).await;
    assert_refused(refused, Code::Unknown, "etcdserver: unknown method");
}
