//! From what K3s answers to the cluster's view. Pure.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cluster::layout::K3sNode;
use crate::cluster::safety::node_of;
use crate::cluster::view::{ClusterView, MemberView, NodeView};
use crate::rpc::pb::etcdserverpb::StatusResponse;

/// Label and role of a server with embedded etcd.
const ROLE_LABEL: &str = "node-role.kubernetes.io/";

/// K3s's annotation with the name of a node's member (`pkg/etcd/etcd.go`).
const MEMBER_ANNOTATION: &str = "etcd.k3s.cattle.io/node-name";

/// … and with its address.
const ADDRESS_ANNOTATION: &str = "etcd.k3s.cattle.io/node-address";

/// What stands for a leader that is there but not known by name.
const SOME_LEADER: &str = "unknown";

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Node objects.
    pub(super) nodes: Vec<Json>,
    /// The answer to `/db/info`.
    pub(super) members: Option<Json>,
    /// How each member is, by name.
    pub(super) health: BTreeMap<String, Health>,
    /// The CA's hash.
    pub(super) ca_hash: Option<String>,
}

/// A member of K3s's store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) peer_urls: Vec<String>,
    pub(super) client_urls: Vec<String>,
    pub(super) is_learner: bool,
}

/// How a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) answers: bool,
    id: u64,
    leader: u64,
    term: u64,
    revision: i64,
    index: u64,
    applied: u64,
    db_bytes: Option<u64>,
    version: Option<String>,
    /// Alarms that stand, in etcd's words.
    errors: Vec<String>,
}

impl Health {
    /// Of a member of which only that is known.
    pub(super) fn reachable(answers: bool) -> Self {
        Self { answers, ..Self::default() }
    }

    pub(super) fn of(status: &StatusResponse) -> Self {
        Self {
            answers: true,
            id: status.header.as_ref().map_or(0, |header| header.member_id),
            leader: status.leader,
            term: status.raft_term,
            revision: status.header.as_ref().map_or(0, |header| header.revision),
            index: status.raft_index,
            applied: status.raft_applied_index,
            db_bytes: u64::try_from(status.db_size).ok(),
            version: Some(status.version.clone()),
            errors: status.errors.clone(),
        }
    }
}

/// The members: as the server tells them, or else as the nodes' annotations do.
pub(super) fn members(seen: &Seen) -> Vec<Member> {
    let told = seen.members.as_ref().and_then(|info| info.get("members")).and_then(Json::as_array);
    if let Some(told) = told {
        return told.iter().map(member).collect();
    }
    seen.nodes.iter().filter_map(annotated).collect()
}

fn member(entry: &Json) -> Member {
    let texts = |key: &str| {
        let list = entry.get(key).and_then(Json::as_array);
        list.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    Member {
        name: text(entry, "/name").to_owned(),
        peer_urls: texts("peerURLs"),
        client_urls: texts("clientURLs"),
        is_learner: entry.get("isLearner").and_then(Json::as_bool).unwrap_or(false),
    }
}

fn annotated(node: &Json) -> Option<Member> {
    let annotations = node.pointer("/metadata/annotations")?;
    let name = annotations.get(MEMBER_ANNOTATION)?.as_str()?;
    let address = annotations.get(ADDRESS_ANNOTATION).and_then(Json::as_str).unwrap_or_default();
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    Some(Member {
        name: name.to_owned(),
        peer_urls: vec![format!("https://{address}:2380")],
        client_urls: vec![format!("https://{address}:2379")],
        is_learner: condition(node, "EtcdIsVoter").is_some_and(|(status, _)| status == "False"),
    })
}

/// The whole, as `node` sees it.
pub(super) fn view(node: &K3sNode, seen: &Seen) -> ClusterView {
    let name = node.name.as_str();
    let members = members(seen);
    let own = seen.nodes.iter().find(|node| text(node, "/metadata/name") == name);
    let own_member = own.and_then(annotated).map(|member| member.name);
    let own_member = own_member.or_else(|| {
        let found = members.iter().find(|member| node_of(&member.name) == name);
        found.map(|member| member.name.clone())
    });
    let reason = match (node.has_kubelet, own) {
        (true, None) => Some(format!("the cluster has no node {name}")),
        (true, Some(own)) => not_ready(own),
        (false, _) => None,
    };
    let learns = |member: &&Member| Some(&member.name) == own_member.as_ref() && member.is_learner;
    let learner = members.iter().find(learns);
    let reason = reason.or_else(|| learner.map(|_| "its member does not vote yet".to_owned()));
    let highest = seen.health.values().map(|health| health.index).max().unwrap_or(0);
    let view = |member: &Member| {
        let health = seen.health.get(&member.name).cloned().unwrap_or_default();
        MemberView {
            id: member.name.clone(),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            voter: !member.is_learner,
            healthy: health.answers,
            lag: (health.index > 0).then(|| highest.saturating_sub(health.applied)),
            db_bytes: health.db_bytes,
            version: health.version,
        }
    };
    let ca_hash = seen.ca_hash.clone().unwrap_or_default();
    ClusterView {
        cluster_id: ca_hash.chars().take(16).collect(),
        member_id: own_member.unwrap_or_default(),
        node_name: name.to_owned(),
        ready: reason.is_none(),
        not_ready_reason: reason,
        term: seen.health.values().map(|health| health.term).max().unwrap_or(0),
        revision: seen.health.values().map(|health| health.revision).max().unwrap_or(0),
        // The API server would not have answered without a quorum.
        leader_id: Some(leader(seen).unwrap_or_else(|| SOME_LEADER.to_owned())),
        ca_hash,
        members: members.iter().map(view).collect(),
        nodes: seen.nodes.iter().map(node_view).collect(),
        alarms: alarms(seen),
        ..ClusterView::default()
    }
}

/// Alarms that any member tells of, each once. etcd says `memberID:<number> alarm:NOSPACE`.
fn alarms(seen: &Seen) -> Vec<String> {
    let told = seen.health.values().flat_map(|health| &health.errors);
    let alarm = |text: &String| {
        let word = |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key));
        let id = word("memberID:").and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
        let name = seen.health.iter().find(|(_, health)| health.id == id && id != 0);
        let id = name.map_or_else(|| format!("{id:x}"), |(name, _)| name.clone());
        Some(format!("{} on member {id}", word("alarm:")?))
    };
    let alarms: std::collections::BTreeSet<String> = told.filter_map(alarm).collect();
    alarms.into_iter().collect()
}

fn leader(seen: &Seen) -> Option<String> {
    let leader = seen.health.values().map(|health| health.leader).find(|leader| *leader != 0)?;
    let found = seen.health.iter().find(|(_, health)| health.id == leader)?;
    Some(found.0.clone())
}

/// Why a node is not ready; `None` when it is: `Ready`, and a voter when it is a member.
fn not_ready(node: &Json) -> Option<String> {
    match condition(node, "Ready") {
        Some(("True", _)) => {}
        Some((_, message)) if !message.is_empty() => return Some(message.to_owned()),
        _ => return Some("the node is not Ready".to_owned()),
    }
    if let Some(("False", message)) = condition(node, "EtcdIsVoter") {
        return Some(format!("its member does not vote yet: {message}"));
    }
    None
}

/// Status and message of a node's condition.
fn condition<'a>(node: &'a Json, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = node.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| text(condition, "/type") == kind)?;
    Some((text(found, "/status"), text(found, "/message")))
}

fn node_view(node: &Json) -> NodeView {
    let map = |path: &str| -> BTreeMap<String, String> {
        let entries = node.pointer(path).and_then(Json::as_object);
        let pairs = entries.into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    let labels = map("/metadata/labels");
    let roles = labels.iter().filter(|(_, value)| *value == "true");
    let roles = roles.filter_map(|(key, _)| key.strip_prefix(ROLE_LABEL)).map(str::to_owned);
    let list = |path: &str| node.pointer(path).and_then(Json::as_array).into_iter().flatten();
    let internal = list("/status/addresses").find(|entry| text(entry, "/type") == "InternalIP");
    let beat = list("/status/conditions").find(|entry| text(entry, "/type") == "Ready");
    NodeView {
        name: text(node, "/metadata/name").to_owned(),
        roles: roles.collect(),
        ready: condition(node, "Ready").is_some_and(|(status, _)| status == "True"),
        version: text(node, "/status/nodeInfo/kubeletVersion").to_owned(),
        internal_ip: internal.map(|entry| text(entry, "/address")).unwrap_or_default().to_owned(),
        created_unix_s: unix(text(node, "/metadata/creationTimestamp")),
        heartbeat_unix_s: beat.map_or(0, |entry| unix(text(entry, "/lastHeartbeatTime"))),
        os_image: text(node, "/status/nodeInfo/osImage").to_owned(),
        kernel: text(node, "/status/nodeInfo/kernelVersion").to_owned(),
        taints: list("/spec/taints").map(taint).collect(),
        labels,
    }
}

fn taint(entry: &Json) -> String {
    let (key, value, effect) = (text(entry, "/key"), text(entry, "/value"), text(entry, "/effect"));
    if value.is_empty() { format!("{key}:{effect}") } else { format!("{key}={value}:{effect}") }
}

fn unix(text: &str) -> u64 {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    time.and_then(|time| u64::try_from(time.unix_timestamp()).ok()).unwrap_or(0)
}

fn text<'a>(value: &'a Json, path: &str) -> &'a str {
    value.pointer(path).and_then(Json::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::layout::{Distribution, Layout, Role};

    fn asked() -> K3sNode {
        Layout::new(Distribution::K3s, Role::Server, None).k3s_node(Role::Server, "s1")
    }

    fn node(name: &str, ready: &str, voter: Option<&str>) -> Json {
        let mut conditions =
            vec![json!({ "type": "Ready", "status": ready, "message": "kubelet says so",
            "lastHeartbeatTime": "2026-01-01T00:00:10Z" })];
        conditions.extend(voter.map(|status| {
            json!({ "type": "EtcdIsVoter", "status": status, "message": "Node is a learner" })
        }));
        json!({
            "metadata": {
                "name": name,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "node-role.kubernetes.io/control-plane": "true",
                            "node-role.kubernetes.io/etcd": "true", "zone": "a" },
                "annotations": { "etcd.k3s.cattle.io/node-name": format!("{name}-0123abcd"),
                                 "etcd.k3s.cattle.io/node-address": "10.0.0.1" },
            },
            "spec": { "taints": [{ "key": "CriticalAddonsOnly", "value": "true", "effect": "NoExecute" }] },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
                "conditions": conditions,
                "nodeInfo": { "kubeletVersion": "v1.36.3+k3s1", "osImage": "Debian", "kernelVersion": "6.1" },
            },
        })
    }

    fn seen(nodes: Vec<Json>, members: Option<Json>) -> Seen {
        Seen { nodes, members, ca_hash: Some("ab".repeat(32)), ..Seen::default() }
    }

    #[test]
    fn a_node_is_ready_only_as_a_voter() {
        let learner = json!({ "members": [{ "ID": 1, "name": "s1-0123abcd", "isLearner": true }] });
        let voter = json!({ "members": [{ "ID": 1, "name": "s1-0123abcd" }] });
        for (nodes, members, expected) in [
            (vec![node("s1", "True", Some("True"))], None, None),
            (vec![node("s1", "True", None)], Some(voter), None),
            (vec![node("s1", "True", None)], None, None),
            (vec![node("s1", "True", None)], Some(learner), Some("does not vote yet")),
            (vec![node("s1", "True", Some("False"))], None, Some("does not vote yet: Node is")),
            (vec![node("s1", "Unknown", Some("True"))], None, Some("kubelet says so")),
            (vec![node("s2", "True", None)], None, Some("has no node s1")),
        ] {
            let view = view(&asked(), &seen(nodes, members));
            match expected {
                None => assert!(view.ready, "{view:?}"),
                Some(why) => {
                    assert!(view.not_ready_reason.as_ref().unwrap().contains(why), "{view:?}");
                }
            }
        }
    }

    #[test]
    fn a_server_without_a_kubelet_is_ready_as_a_voter() {
        let asked = K3sNode { has_kubelet: false, ..asked() };
        let info =
            |learner| json!({ "members": [{ "name": "s1-0123abcd", "isLearner": learner }] });
        let ready = |info| view(&asked, &seen(Vec::new(), Some(info))).ready;
        assert!(ready(info(false)) && !ready(info(true)));
    }

    #[test]
    fn nodes_and_members_are_told_in_full() {
        let info = json!({ "members": [{ "ID": 7, "name": "s1-0123abcd", "peerURLs": ["https://10.0.0.1:2380"],
            "clientURLs": ["https://10.0.0.1:2379"] }] });
        let mut seen = seen(vec![node("s1", "True", None)], Some(info));
        let health = Health {
            answers: true,
            id: 7,
            leader: 7,
            index: 9,
            applied: 8,
            revision: 5,
            ..Health::default()
        };
        seen.health.insert("s1-0123abcd".to_owned(), health);
        let view = view(&asked(), &seen);
        assert_eq!(
            (view.cluster_id.as_str(), view.member_id.as_str()),
            ("abababababababab", "s1-0123abcd")
        );
        assert_eq!((view.leader_id.as_deref(), view.revision), (Some("s1-0123abcd"), 5));
        let member = &view.members[0];
        assert_eq!((member.id.as_str(), member.voter, member.healthy), ("s1-0123abcd", true, true));
        assert_eq!((member.lag, member.peer_urls.len()), (Some(1), 1));
        let node = &view.nodes[0];
        assert_eq!(node.roles, ["control-plane", "etcd"]);
        assert_eq!(
            (node.version.as_str(), node.internal_ip.as_str()),
            ("v1.36.3+k3s1", "10.0.0.1")
        );
        assert_eq!(node.taints, ["CriticalAddonsOnly=true:NoExecute"]);
        assert_eq!(node.heartbeat_unix_s - node.created_unix_s, 10);
    }

    #[test]
    fn alarms_are_told_once_by_the_members_name() {
        let mut seen = seen(vec![node("s1", "True", None)], None);
        let errors =
            vec!["memberID:7 alarm:NOSPACE ".to_owned(), "etcdserver: no leader".to_owned()];
        let health = Health { answers: true, id: 7, errors, ..Health::default() };
        seen.health.insert("s2-0123abcd".to_owned(), Health { id: 9, ..health.clone() });
        seen.health.insert("s1-0123abcd".to_owned(), health);
        assert_eq!(view(&asked(), &seen).alarms, ["NOSPACE on member s1-0123abcd"]);
    }

    #[test]
    fn without_the_servers_word_the_nodes_annotations_name_the_members() {
        let members = members(&seen(vec![node("s1", "True", Some("False")), json!({})], None));
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].client_urls, ["https://10.0.0.1:2379"]);
        assert!(members[0].is_learner);
    }
}
