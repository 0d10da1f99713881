//! What is asked over plain HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Fixture;
use crate::raft::api::ConsensusError;
use crate::rpc::pb::etcdserverpb as pb;
use crate::store::types::AlarmKind;

/// Status code and body of a GET over HTTP/1.1.
async fn get(fixture: &Fixture, path: &str) -> (u16, String) {
    ask(fixture, "GET", path).await
}

async fn ask(fixture: &Fixture, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_healthy_member_says_so_as_etcd_does() {
    let fixture = Fixture::new().await;
    let healthy = r#"{"health":"true","reason":""}"#;
    assert_eq!(get(&fixture, "/health").await, (200, healthy.to_owned()));
    assert_eq!(get(&fixture, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&fixture, "/readyz").await, (200, "ok\n".to_owned()));
    let verbose = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                   [+]non_learner ok\nok\n";
    assert_eq!(get(&fixture, "/readyz?verbose").await, (200, verbose.to_owned()));
    let one = "[+]linearizable_read ok\nok\n".to_owned();
    assert_eq!(get(&fixture, "/readyz/linearizable_read?verbose").await, (200, one));
    assert_eq!(get(&fixture, "/nothing").await, (404, "404 page not found\n".to_owned()));
    let version = r#"{"etcdserver":"3.5.30","etcdcluster":"3.5.0"}"#.to_owned();
    assert_eq!(get(&fixture, "/version").await, (200, version));
}

#[tokio::test]
async fn without_a_leader_the_member_lives_but_is_not_ready() {
    let fixture = Fixture::new().await;
    fixture.solo.fail(Some(ConsensusError::NoLeader));
    let range = r#"{"health":"false","reason":"RANGE ERROR:etcdserver: no leader"}"#;
    assert_eq!(get(&fixture, "/health").await, (503, format!("{range}\n")));
    fixture.solo.change_status(|status| status.leader = None);
    let leader = r#"{"health":"false","reason":"RAFT NO LEADER"}"#;
    assert_eq!(get(&fixture, "/health").await, (503, format!("{leader}\n")));
    assert_eq!(get(&fixture, "/health?serializable=true").await.0, 200);
    assert_eq!(get(&fixture, "/livez").await.0, 200);
    let (code, body) = get(&fixture, "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains("[-]linearizable_read failed: etcdserver: no leader\n"), "{body}");
    assert_eq!(get(&fixture, "/readyz?exclude=linearizable_read").await.0, 200);
}

#[tokio::test]
async fn an_alarm_makes_the_member_unhealthy_unless_it_is_excluded() {
    let fixture = Fixture::new().await;
    fixture.solo.raise(AlarmKind::NoSpace);
    let alarm = "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".to_owned();
    assert_eq!(get(&fixture, "/health").await, (503, alarm));
    assert_eq!(get(&fixture, "/health?exclude=NOSPACE").await.0, 200);
    fixture.solo.raise(AlarmKind::Corrupt);
    let (code, body) = get(&fixture, "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{body}");
}

#[tokio::test]
async fn metrics_have_etcds_names() {
    let fixture = Fixture::new().await;
    fixture.put("secret-key", "secret-value").await;
    fixture.solo.fail(Some(ConsensusError::Timeout));
    let refused = fixture.client.kv.clone().put(super::put("secret-key", "secret")).await;
    assert!(refused.is_err());
    let (code, text) = get(&fixture, "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_proposals_committed_total 2",
        "etcd_server_proposals_pending 0",
        "etcd_server_proposals_failed_total 1",
        "etcd_debugging_mvcc_current_revision 2",
        "etcd_mvcc_db_total_size_in_bytes 4096",
        "etcd_disk_wal_fsync_duration_seconds_count 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
         grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
    }
    for call in ["started_total", "handling_seconds_count"] {
        let line = format!(
            "grpc_server_{call}{{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",\
             grpc_type=\"unary\"}} 2"
        );
        assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
    }
    for way in ["received", "sent"] {
        let bytes = format!("etcd_network_client_grpc_{way}_bytes_total ");
        let bytes = text.lines().find_map(|line| line.strip_prefix(&bytes)).unwrap();
        assert!(bytes.parse::<u64>().unwrap() > 100, "{way}: {bytes}");
    }
    assert!(text.contains("process_resident_memory_bytes"));
    assert!(!text.contains("secret"));
}

#[tokio::test]
async fn what_was_asked_of_a_member_is_counted() {
    let fixture = Fixture::new().await;
    fixture.put("key", "value").await;
    let hash = pb::HashKvRequest { revision: 0 };
    let mut maintenance = fixture.client.maintenance.clone();
    maintenance.hash_kv(hash).await.unwrap();
    maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    let stranger = pb::MemberPromoteRequest { id: 77 };
    fixture.client.cluster.clone().member_promote(stranger).await.unwrap_err();
    assert_eq!(get(&fixture, "/readyz/linearizable_read").await.0, 200);
    fixture.solo.fail(Some(ConsensusError::NoLeader));
    assert_eq!(get(&fixture, "/readyz/linearizable_read").await.0, 503);
    fixture.solo.fail(Some(ConsensusError::Timeout));
    assert_eq!(get(&fixture, "/readyz/linearizable_read").await.0, 503);
    fixture.solo.fail(None);
    let (_, text) = get(&fixture, "/metrics").await;
    let check = r#"{name="linearizable_read",status="error",type="readyz"}"#;
    let put = r#"{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    for line in [
        r#"etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0"#,
        &format!("etcd_server_healthchecks_total{check} 2"),
        "etcd_server_slow_read_indexes_total 1",
        "etcd_server_read_indexes_failed_total 1",
        "etcd_server_learner_promote_successes 0",
        r#"etcd_server_learner_promote_failures{Reason="etcdserver: can only promote a learner member"} 1"#,
        "etcd_mvcc_hash_rev_duration_seconds_count 1",
        "etcd_mvcc_hash_duration_seconds_count 0",
        "etcd_disk_backend_defrag_duration_seconds_count 1",
        "etcd_disk_defrag_inflight 0",
        "etcd_disk_backend_snapshot_duration_seconds_count 0",
        r#"etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 4"#,
        &format!("grpc_server_msg_received_total{put} 1"),
        &format!("grpc_server_msg_sent_total{put} 1"),
        "etcd_debugging_mvcc_db_compaction_keys_total 0",
        "etcd_debugging_mvcc_slow_watcher_total 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
    }
}

#[tokio::test]
async fn pages_are_got_and_nothing_else() {
    let fixture = Fixture::new().await;
    for path in ["/health", "/version", "/livez", "/readyz/linearizable_read"] {
        let refused = (405, "Method Not Allowed\n".to_owned());
        assert_eq!(ask(&fixture, "POST", path).await, refused, "{path}");
        assert_eq!(ask(&fixture, "HEAD", path).await, (405, String::new()), "{path}");
    }
    assert_eq!(ask(&fixture, "HEAD", "/metrics").await, (200, String::new()));
    assert!(ask(&fixture, "POST", "/metrics").await.1.contains("etcd_server_has_leader 1"));
}
