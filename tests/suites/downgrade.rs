//! `Maintenance.Downgrade` beside a real etcd: both give the same answers and refusals, in a row of
//! requests that goes through all of them; and with three members, all know of a downgrade.

use crate::support;
use crate::support::etcd::{Etcd, SLOW_ELECTIONS};
use crate::support::member::Alone;
use crate::support::trio::Trio;
use k3sup_rs::rpc::client::{Client, connect};
use k3sup_rs::rpc::pb::etcdserverpb as pb;
use pb::downgrade_request::DowngradeAction::{self as Action, Cancel, Enable, Validate};
use tonic::Code;

/// What an etcd of 3.5 says when it does not answer in time.
const LATE: &str = "etcdserver: request timed out";

async fn ask(client: &Client, action: i32, version: &str) -> Result<String, (Code, String)> {
    let request = pb::DowngradeRequest { action, version: version.to_owned() };
    let answer = client.maintenance.clone().downgrade(request).await;
    match answer {
        Ok(answer) => {
            let answer = answer.into_inner();
            assert!(answer.header.is_some_and(|header| header.member_id != 0));
            Ok(answer.version)
        }
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

fn is_late(answer: &Result<String, (Code, String)>) -> bool {
    answer.as_ref().is_err_and(|(_, text)| text == LATE)
}

#[tokio::test]
async fn the_same_is_answered_and_refused() {
    let Some(real) = Etcd::start("127.101.0.1") else { return };
    let real = real_ready(real).await;
    // So patient that what comes too late is always etcd's.
    let ours = Alone::start_with("127.101.0.2", &SLOW_ELECTIONS);
    let (real_client, own_client) =
        (real.client(), connect(std::slice::from_ref(&ours.url), None).unwrap());
    let versions = [
        "3.4.0",
        "3.4",
        "3.4.99",
        "3.4.0-rc.1",
        "3.4.0+a-b",
        "3.5",
        "3.5.0",
        "3.3.0",
        "4.4.0",
        "2.4.0",
        "3.6.0",
        "",
        "3",
        "v3.4",
        "3.4.x",
        "3.4.0.0",
        "3.4-rc",
        "3.4+x",
        "3..0",
        ".",
        "-",
        "3.4.-1",
        "3.4.0-ä",
        "3.4.0-",
        "3.4.0+",
        "3.4.99999999999999999999",
        " 3.4.0",
    ];
    let validate = |action: Action| versions.map(move |version| (action.into(), version));
    let mut requests: Vec<(i32, &str)> = vec![(Cancel.into(), "")];
    requests.extend(validate(Validate));
    requests.extend(validate(Enable).iter().filter(|(_, version)| !version.starts_with("3.4")));
    requests.extend([(Enable.into(), "3.4"), (Enable.into(), "3.4")]);
    requests.extend(validate(Validate));
    requests.extend([(Cancel.into(), "nothing"), (Cancel.into(), ""), (Validate.into(), "3.4")]);
    requests.extend([(Enable.into(), "3.4.7"), (Cancel.into(), ""), (9, "3.4")]);
    for (number, (action, version)) in requests.into_iter().enumerate() {
        let own = ask(&own_client, action, version).await;
        let mut etcds = ask(&real_client, action, version).await;
        for _ in 0..5 {
            if action == i32::from(Validate) && is_late(&etcds) {
                etcds = ask(&real_client, action, version).await;
            }
        }
        // etcd 3.5 records a change, but does not answer in time.
        let is_recorded = action != i32::from(Validate) && own.as_deref() == Ok("3.5.0");
        if !(is_recorded && is_late(&etcds)) {
            assert_eq!(own, etcds, "request {number}: {action} {version:?}");
        }
    }
}

/// The version of a cluster is decided a little after its members begin.
async fn real_ready(real: Etcd) -> Etcd {
    let client = real.client();
    let unknown = "etcdserver: cluster version not found during downgrade";
    while ask(&client, Validate.into(), "3.4").await.is_err_and(|(_, text)| text == unknown) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    real
}

#[tokio::test]
async fn all_members_know_of_it_also_after_they_were_killed() {
    let trio = Trio::new("101.1");
    let all = [1, 2, 3];
    let mut members: Vec<_> = all.iter().map(|member| trio.start(*member, &all, &[])).collect();
    members.iter_mut().for_each(support::member::Member::ready);
    let client = |member| connect(&[trio.url(member, 2379)], None).unwrap();
    assert_eq!(ask(&client(1), Enable.into(), "3.4").await.unwrap(), "3.5.0");
    let standing = "etcdserver: cluster has a downgrade job in progress";
    for member in all {
        let refused = ask(&client(member), Validate.into(), "3.4").await.unwrap_err();
        assert_eq!(refused, (Code::FailedPrecondition, standing.to_owned()));
    }
    members.iter_mut().for_each(support::member::Member::kill);
    let mut members: Vec<_> = all.iter().map(|member| trio.start(*member, &all, &[])).collect();
    members.iter_mut().for_each(support::member::Member::ready);
    assert_eq!(ask(&client(2), Validate.into(), "3.4").await.unwrap_err().1, standing);
    assert_eq!(ask(&client(3), Cancel.into(), "").await.unwrap(), "3.5.0");
    assert_eq!(ask(&client(1), Validate.into(), "3.4").await.unwrap(), "3.5.0");
}
