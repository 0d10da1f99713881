//! The answers of the API as etcdctl's JSON and fields have them (etcd 3.5,
//! `etcdctl/ctlv3/command/printer*.go`), as far as the commands here get them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::show::{Answer, Fields, Table};
use crate::rpc::pb::etcdserverpb::{
    AlarmMember, AlarmResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, Member, MemberAddResponse,
    MemberListResponse, MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse,
    PutResponse, RangeResponse, ResponseHeader, WatchResponse,
};
use crate::rpc::pb::mvccpb::{Event, KeyValue};

/// As Go writes it: without what is zero.
pub(super) fn header(header: Option<&ResponseHeader>) -> Json {
    let header = header.copied().unwrap_or_default();
    sparse(json!({
        "cluster_id": header.cluster_id,
        "member_id": header.member_id,
        "revision": header.revision,
        "raft_term": header.raft_term,
    }))
}

fn pair(pair: &KeyValue) -> Json {
    sparse(json!({
        "key": STANDARD.encode(&pair.key),
        "create_revision": pair.create_revision,
        "mod_revision": pair.mod_revision,
        "version": pair.version,
        "value": STANDARD.encode(&pair.value),
        "lease": pair.lease,
    }))
}

/// Without fields that are zero, false or empty.
pub(super) fn sparse(value: Json) -> Json {
    let Json::Object(mut fields) = value else { return value };
    fields.retain(|_, value| match value {
        Json::Null => false,
        Json::Bool(value) => *value,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(_) => true,
    });
    Json::Object(fields)
}

/// The fields of the header and `more` beside each other, as Go writes a struct within a struct.
fn beside(of: Option<&ResponseHeader>, more: Json) -> Json {
    let mut value = header(of);
    if let (Some(fields), Json::Object(more)) = (value.as_object_mut(), more) {
        fields.extend(more);
    }
    value
}

/// The answer is a message of the API.
macro_rules! encoded {
    () => {
        fn message(&self) -> Option<Vec<u8>> {
            Some(prost::Message::encode_to_vec(self))
        }
    };
}
pub(super) use encoded;

impl Answer for RangeResponse {
    fn json(&self) -> Json {
        let kvs: Vec<_> = self.kvs.iter().map(pair).collect();
        let header = header(self.header.as_ref());
        sparse(json!({ "header": header, "kvs": kvs, "more": self.more, "count": self.count }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        self.kvs.iter().for_each(|pair| fields.pair("", pair));
        fields.plain("More", self.more);
        fields.plain("Count", self.count);
    }

    encoded!();
}

impl Answer for PutResponse {
    fn json(&self) -> Json {
        let before = self.prev_kv.as_ref().map(pair);
        sparse(json!({ "header": header(self.header.as_ref()), "prev_kv": before }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        self.prev_kv.iter().for_each(|pair| fields.pair("Prev", pair));
    }

    encoded!();
}

impl Answer for DeleteRangeResponse {
    fn json(&self) -> Json {
        let before: Vec<_> = self.prev_kvs.iter().map(pair).collect();
        let header = header(self.header.as_ref());
        sparse(json!({ "header": header, "deleted": self.deleted, "prev_kvs": before }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        fields.plain("Deleted", self.deleted);
        self.prev_kvs.iter().for_each(|pair| fields.pair("Prev", pair));
    }

    encoded!();
}

/// The kind of a change, in the API's word.
pub(super) fn kind(event: &Event) -> &'static str {
    event.r#type().as_str_name()
}

impl Answer for WatchResponse {
    fn json(&self) -> Json {
        let event = |event: &Event| {
            sparse(json!({
                "type": event.r#type,
                "kv": event.kv.as_ref().map(pair),
                "prev_kv": event.prev_kv.as_ref().map(pair),
            }))
        };
        let events: Vec<_> = self.events.iter().map(event).collect();
        json!({ "Header": header(self.header.as_ref()), "Events": events,
            "CompactRevision": 0, "Canceled": false, "Created": false })
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        for event in &self.events {
            fields.plain("Type", kind(event));
            event.prev_kv.iter().for_each(|pair| fields.pair("Prev", pair));
            event.kv.iter().for_each(|pair| fields.pair("", pair));
        }
    }

    encoded!();
}

impl Answer for LeaseGrantResponse {
    fn json(&self) -> Json {
        let more = json!({ "ID": self.id, "TTL": self.ttl, "Error": self.error });
        beside(self.header.as_ref(), more)
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        fields.plain("ID", self.id);
        fields.plain("TTL", self.ttl);
    }

    encoded!();
}

impl Answer for LeaseKeepAliveResponse {
    fn json(&self) -> Json {
        beside(self.header.as_ref(), json!({ "ID": self.id, "TTL": self.ttl }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        fields.plain("ID", self.id);
        fields.plain("TTL", self.ttl);
    }

    encoded!();
}

impl Answer for LeaseTimeToLiveResponse {
    fn json(&self) -> Json {
        let keys: Vec<String> = self.keys.iter().map(|key| STANDARD.encode(key)).collect();
        let keys = if keys.is_empty() { json!(null) } else { json!(keys) };
        let more = json!({
            "id": self.id, "ttl": self.ttl, "granted-ttl": self.granted_ttl, "keys": keys,
        });
        beside(self.header.as_ref(), more)
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        fields.plain("ID", self.id);
        fields.plain("TTL", self.ttl);
        fields.plain("GrantedTTL", self.granted_ttl);
        self.keys.iter().for_each(|key| fields.quoted("Key", key));
    }

    encoded!();
}

impl Answer for LeaseLeasesResponse {
    fn json(&self) -> Json {
        let leases: Vec<_> = self.leases.iter().map(|lease| json!({ "id": lease.id })).collect();
        beside(self.header.as_ref(), json!({ "leases": leases }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        self.leases.iter().for_each(|lease| fields.plain("ID", lease.id));
    }

    encoded!();
}

impl Answer for LeaseRevokeResponse {
    fn json(&self) -> Json {
        json!({ "header": header(self.header.as_ref()) })
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
    }

    encoded!();
}

fn member(member: &Member) -> Json {
    sparse(json!({
        "ID": member.id,
        "name": member.name,
        "peerURLs": member.peer_ur_ls,
        "clientURLs": member.client_ur_ls,
        "isLearner": member.is_learner,
    }))
}

/// A member as `member list` has it in a line.
fn member_row(member: &Member) -> Vec<String> {
    let started = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        started.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

impl Answer for MemberListResponse {
    fn json(&self) -> Json {
        let members: Vec<_> = self.members.iter().map(member).collect();
        json!({ "header": header(self.header.as_ref()), "members": members })
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        for member in &self.members {
            fields.plain("ID", member.id);
            fields.quoted("Name", &member.name);
            member.peer_ur_ls.iter().for_each(|url| fields.quoted("PeerURL", url));
            member.client_ur_ls.iter().for_each(|url| fields.quoted("ClientURL", url));
            fields.plain("IsLearner", member.is_learner);
            fields.end();
        }
    }

    encoded!();

    fn table(&self) -> Option<Table> {
        let head = vec!["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];
        Some((head, self.members.iter().map(member_row).collect()))
    }
}

/// Answers to a change of members, which are alike.
macro_rules! membership {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn json(&self) -> Json {
                let members: Vec<_> = self.members.iter().map(member).collect();
                sparse(json!({ "header": header(self.header.as_ref()), "members": members }))
            }

            fn fields(&self, fields: &mut Fields) {
                fields.header(self.header.as_ref());
            }

            encoded!();
        }
    )*};
}

membership!(MemberRemoveResponse, MemberUpdateResponse, MemberPromoteResponse);

impl Answer for MemberAddResponse {
    fn json(&self) -> Json {
        let members: Vec<_> = self.members.iter().map(member).collect();
        let added = self.member.as_ref().map(member);
        let header = header(self.header.as_ref());
        sparse(json!({ "header": header, "member": added, "members": members }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        self.member.iter().for_each(|member| fields.plain("ID", member.id));
    }

    encoded!();
}

impl Answer for AlarmResponse {
    fn json(&self) -> Json {
        let alarm =
            |alarm: &AlarmMember| json!({ "memberID": alarm.member_id, "alarm": alarm.alarm });
        let alarms: Vec<_> = self.alarms.iter().map(alarm).collect();
        sparse(json!({ "header": header(self.header.as_ref()), "alarms": alarms }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        for alarm in &self.alarms {
            fields.plain("MemberID", alarm.member_id);
            fields.plain("AlarmType", alarm.alarm().as_str_name());
            fields.end();
        }
    }

    encoded!();
}
