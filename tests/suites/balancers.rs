//! A lab behind HAProxy: requests go on while each server in turn is killed, and through a reload.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::store::Store;
use crate::support::{Lab, shown, wait_for};
use k3sup_rs::rpc::client::connect;
use k3sup_rs::rpc::pb::etcdserverpb as pb;

/// A lab with three servers and a load balancer, unless HAProxy is missing.
fn balanced(net: &str, patient: bool) -> Option<Lab> {
    if !Path::new("/usr/sbin/haproxy").exists() {
        eprintln!("SKIPPED: haproxy is not installed");
        return None;
    }
    let lab = Lab::new(net, 3, 0);
    let mut text = std::fs::read_to_string(&lab.inventory).unwrap();
    text.push_str("    loadbalancers:\n");
    if patient {
        // A loaded machine answers late; here it is not about who is up.
        text.push_str(
            "      vars: {loadbalancer_check_interval: 9s, loadbalancer_check_timeout: 9s}\n",
        );
    }
    text.push_str("      hosts:\n");
    text.push_str("        lb1: {ansible_host: ");
    text.push_str(&address(&lab));
    text.push_str("}\n");
    std::fs::write(&lab.inventory, text).unwrap();
    Some(lab)
}

fn address(lab: &Lab) -> String {
    format!("{}.31", lab.net)
}

/// How many voters answer.
fn healthy(lab: &Lab) -> usize {
    let Some(status) = lab.status() else { return 0 };
    let members = status["members"].as_array().unwrap().iter();
    members.filter(|member| member["healthy"] == true && member["voter"] == true).count()
}

#[test]
fn requests_through_haproxy_go_on_while_each_server_in_turn_is_killed() {
    let Some(lab) = balanced("86.1", false) else { return };
    lab.up(&[]);
    let second = lab.up(&[]);
    assert_eq!(second.matches("changed=0").count(), 4, "{second}");
    let store = Store::at(&lab, &[format!("https://{}:2379", address(&lab))]);
    for number in 1..=3 {
        let server = format!("server{number}");
        wait_for("a put while all is well", || store.put(&server, "before").ok());
        lab.lab("kill", &server);
        let killed = Instant::now();
        let mut tries = 0;
        wait_for("a put through the load balancer", || {
            tries += 1;
            store.put(&server, "after").ok()
        });
        eprintln!("{server} killed: put number {tries} went through after {:?}", killed.elapsed());
        // HAProxy may find out about the server only now, and cut what went to it.
        let value = wait_for("a get", || store.get(&server, false).ok());
        assert_eq!(value.as_deref(), Some("after"));
        lab.lab("start", &server);
        wait_for("three healthy voters", || (healthy(&lab) == 3).then_some(()));
    }
}

#[test]
fn a_reload_keeps_connections_and_refuses_none() {
    let Some(lab) = balanced("86.2", true) else { return };
    lab.up(&[]);
    let endpoint = format!("https://{}:2379", address(&lab));
    let tls = lab.tls();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut client =
        runtime.block_on(async { connect(std::slice::from_ref(&endpoint), Some(&tls)) }).unwrap();
    let create =
        pb::WatchCreateRequest { key: "watched".into(), ..pb::WatchCreateRequest::default() };
    let request = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    let requests = tokio_stream::iter([request]);
    // An open end: the stream of requests must not end before that of events.
    let requests = tokio_stream::StreamExt::chain(requests, futures::stream::pending());
    let mut events = runtime
        .block_on(async { client.watch.watch(requests).await })
        .expect("a watch through the load balancer")
        .into_inner();
    let created = runtime.block_on(events.message()).unwrap().unwrap();
    assert!(created.created, "{created:?}");

    let stop = std::sync::atomic::AtomicBool::new(false);
    let target = format!("{}:2379", address(&lab));
    let refused = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut refused = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                refused.extend(std::net::TcpStream::connect(&target).err());
                std::thread::sleep(Duration::from_millis(2));
            }
            refused
        });
        let output =
            lab.run(["up", "-i", lab.inventory_path(), "--yes", "-e", "loadbalancer_drain=2h"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(output.status.success(), "{}", shown(&output));
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("Reload HAProxy"), "{told}");
        caller.join().unwrap()
    });
    assert!(refused.is_empty(), "{refused:?}");
    let store = Store::at(&lab, &[endpoint]);
    wait_for("a put through the new process", || store.put("watched", "now").ok());
    let event = runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), events.message()).await });
    let event = event.expect("an event").expect("the old connection lives").expect("a message");
    assert!(!event.events.is_empty(), "{event:?}");
}

#[test]
fn a_configuration_that_haproxy_refuses_does_not_replace_the_running_one() {
    let Some(lab) = balanced("86.3", true) else { return };
    lab.up(&[]);
    let config = lab.host_dir("lb1").join("etc/haproxy/haproxy.cfg");
    let before = std::fs::read_to_string(&config).unwrap();
    let output =
        lab.run(["up", "-i", lab.inventory_path(), "--yes", "-e", "loadbalancer_drain=nonsense"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let said = shown(&output);
    assert!(said.contains("haproxy -c -f") && said.contains("hard-stop-after"), "{said}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    let store = Store::at(&lab, &[format!("https://{}:2379", address(&lab))]);
    wait_for("a put through the old configuration", || store.put("still", "here").ok());
}
