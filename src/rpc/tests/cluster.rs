//! The Cluster service.

use std::time::Duration;

use tonic::Code;

use super::{Fixture, PATIENCE, assert_refused, pb};

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest { peer_ur_ls: vec![url.into()], is_learner }
}

#[tokio::test]
async fn members_are_listed_without_a_revision() {
    let fixture = Fixture::new().await;
    let mut cluster = fixture.client.cluster.clone();
    let request = pb::MemberListRequest { linearizable: true };
    let list = cluster.member_list(request).await.unwrap().into_inner();
    assert_eq!(list.header.unwrap().revision, 0);
    let [member] = &list.members[..] else { panic!("{list:?}") };
    assert_eq!((member.id, member.name.as_str(), member.is_learner), (1, "solo", false));
}

#[tokio::test]
async fn a_learner_is_added_promoted_updated_and_removed() {
    let fixture = Fixture::new().await;
    let mut cluster = fixture.client.cluster.clone();
    let added = cluster.member_add(add("http://127.0.0.1:9", true)).await.unwrap().into_inner();
    let member = added.member.unwrap();
    assert!(member.is_learner && member.id != 0 && member.name.is_empty(), "{member:?}");
    assert_eq!(added.members.len(), 2);
    assert!(added.members.contains(&member));

    let id = member.id;
    let promoted = cluster.member_promote(pb::MemberPromoteRequest { id }).await.unwrap();
    assert!(promoted.into_inner().members.iter().all(|member| !member.is_learner));
    let again = cluster.member_promote(pb::MemberPromoteRequest { id }).await;
    let text = "etcdserver: can only promote a learner member";
    assert_refused(again, Code::FailedPrecondition, text);

    let peer_ur_ls = vec!["http://127.0.0.1:10".to_owned()];
    let update = pb::MemberUpdateRequest { id, peer_ur_ls: peer_ur_ls.clone() };
    let updated = cluster.member_update(update).await.unwrap().into_inner().members;
    assert_eq!(updated.iter().find(|member| member.id == id).unwrap().peer_ur_ls, peer_ur_ls);

    let left = cluster.member_remove(pb::MemberRemoveRequest { id }).await.unwrap().into_inner();
    assert_eq!(left.members.len(), 1);
    let gone = cluster.member_remove(pb::MemberRemoveRequest { id }).await;
    assert_refused(gone, Code::NotFound, "etcdserver: member not found");
}

#[tokio::test]
async fn a_linearizable_list_shows_no_member_as_it_was_before() {
    let fixture = Fixture::new().await;
    let mut cluster = fixture.client.cluster.clone();
    cluster.member_add(add("http://127.0.0.1:9", true)).await.unwrap();
    // Its promotion is applied, which the status does not tell yet.
    fixture.solo.change_status(|status| status.applied_index -= 1);
    let list = cluster.member_list(pb::MemberListRequest { linearizable: true });
    let mut list = std::pin::pin!(list);
    assert!(tokio::time::timeout(Duration::from_millis(100), list.as_mut()).await.is_err());
    fixture.solo.change_status(|status| {
        status.applied_index += 1;
        status.learners.clear();
    });
    let listed = tokio::time::timeout(PATIENCE, list).await.unwrap().unwrap().into_inner().members;
    assert!(listed.len() == 2 && listed.iter().all(|member| !member.is_learner), "{listed:?}");
}

#[tokio::test]
async fn a_voter_to_be_is_shown_as_the_voter_that_was_asked_for() {
    let fixture = Fixture::new().await;
    let mut cluster = fixture.client.cluster.clone();
    let added = cluster.member_add(add("http://127.0.0.1:9", false)).await.unwrap().into_inner();
    assert!(added.members.iter().all(|member| !member.is_learner), "{added:?}");
}

#[tokio::test]
async fn bad_and_known_urls_are_refused() {
    let fixture = Fixture::new().await;
    let mut cluster = fixture.client.cluster.clone();
    let bad = "etcdserver: given member URLs are invalid";
    assert_refused(cluster.member_add(add("nonsense", true)).await, Code::InvalidArgument, bad);
    let known = "etcdserver: Peer URLs already exists";
    let answer = cluster.member_add(add("http://127.0.0.1:1", true)).await;
    assert_refused(answer, Code::FailedPrecondition, known);
}
