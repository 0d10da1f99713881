//! Users, rights and tokens as clients meet them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::gateway::call;
use super::{Fixture, assert_refused, bytes, pb, put};
use crate::rpc::client::{Client, User, connect_with};
use crate::rpc::pb::authpb;
use pb::auth_client::AuthClient;

async fn auth(fixture: &Fixture) -> AuthClient<Channel> {
    AuthClient::new(fixture.channel().await)
}

/// A request with a token.
fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

fn user(name: &str, password: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    }
}

fn grant(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() }
}

/// A client whose calls are those of a user.
fn client_of(fixture: &Fixture, name: &str, password: &str) -> Client {
    let user = User { name: name.to_owned(), password: password.into() };
    connect_with(&[format!("http://{}", fixture.address)], None, Some(user)).unwrap()
}

/// Root, and `u` who may read and write keys that begin with `u`; enabled.
pub(super) async fn enabled() -> (Fixture, AuthClient<Channel>) {
    let fixture = Fixture::new().await;
    let mut auth = auth(&fixture).await;
    auth.user_add(user("root", "secret")).await.unwrap();
    auth.user_grant_role(grant("root", "root")).await.unwrap();
    auth.user_add(user("u", "pass")).await.unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "r".to_owned() }).await.unwrap();
    let perm = authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: bytes("u"),
        range_end: bytes("v"),
    };
    let perm = pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: Some(perm) };
    auth.role_grant_permission(perm).await.unwrap();
    auth.user_grant_role(grant("u", "r")).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    (fixture, auth)
}

async fn login(auth: &mut AuthClient<Channel>, name: &str, password: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    auth.authenticate(request).await.unwrap().into_inner().token
}

#[tokio::test]
async fn nobody_logs_in_before_it_is_enabled() {
    let fixture = Fixture::new().await;
    let mut auth = auth(&fixture).await;
    let request = pb::AuthenticateRequest::default();
    let text = "etcdserver: authentication is not enabled";
    assert_refused(auth.authenticate(request).await, Code::FailedPrecondition, text);
    let text = "etcdserver: root user does not exist";
    let enable = auth.auth_enable(pb::AuthEnableRequest {}).await;
    assert_refused(enable, Code::FailedPrecondition, text);
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    auth.user_add(user("root", "x")).await.unwrap();
    let text = "etcdserver: user name already exists";
    assert_refused(auth.user_add(user("root", "x")).await, Code::FailedPrecondition, text);
    let text = "etcdserver: role name not found";
    let granted = auth.user_grant_role(grant("root", "none")).await;
    assert_refused(granted, Code::FailedPrecondition, text);
}

#[tokio::test]
async fn a_client_logs_in_and_does_so_again_when_its_token_has_ended() {
    let (fixture, mut auth) = enabled().await;
    let mut client = client_of(&fixture, "u", "pass");
    client.kv.put(put("u1", "x")).await.unwrap();
    let denied = "etcdserver: permission denied";
    assert_refused(client.kv.put(put("x", "x")).await, Code::PermissionDenied, denied);

    let before = login(&mut auth, "u", "pass").await;
    let mut root = client_of(&fixture, "root", "secret");
    root.auth.auth_disable(pb::AuthDisableRequest {}).await.unwrap();
    root.auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let invalid = fixture.client.kv.clone().put(with(&before, put("u1", "y"))).await;
    assert_refused(invalid, Code::Unauthenticated, "etcdserver: invalid auth token");
    client.kv.put(put("u1", "y")).await.unwrap();
    client.kv.clone().put(put("u2", "y")).await.unwrap();

    let mut wrong = client_of(&fixture, "u", "no");
    let text = "etcdserver: authentication failed, invalid user ID or password";
    assert_refused(wrong.kv.put(put("u1", "z")).await, Code::InvalidArgument, text);
}

#[tokio::test]
async fn a_client_with_a_user_may_be_there_before_users_must_log_in() {
    let fixture = Fixture::new().await;
    let mut root = client_of(&fixture, "root", "secret");
    root.kv.put(put("k", "x")).await.unwrap();
    root.auth.user_add(user("root", "secret")).await.unwrap();
    root.auth.user_grant_role(grant("root", "root")).await.unwrap();
    root.auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    root.kv.put(put("k", "y")).await.unwrap();
}

#[tokio::test]
async fn users_do_what_their_roles_allow() {
    let (fixture, mut auth) = enabled().await;
    let mut kv = fixture.client.kv.clone();
    let empty = "etcdserver: user name is empty";
    assert_refused(kv.put(put("u1", "x")).await, Code::InvalidArgument, empty);
    let wrong = pb::AuthenticateRequest { name: "u".to_owned(), password: "no".to_owned() };
    let text = "etcdserver: authentication failed, invalid user ID or password";
    assert_refused(auth.authenticate(wrong).await, Code::InvalidArgument, text);
    let token = login(&mut auth, "u", "pass").await;
    assert_eq!(token.find('.'), Some(16), "{token}");
    kv.put(with(&token, put("u1", "x"))).await.unwrap();
    let denied = "etcdserver: permission denied";
    let other = kv.put(with(&token, put("x", "x"))).await;
    assert_refused(other, Code::PermissionDenied, denied);
    let range = |key: &str| pb::RangeRequest { key: bytes(key), ..Default::default() };
    assert_eq!(kv.range(with(&token, range("u1"))).await.unwrap().into_inner().count, 1);
    assert_refused(kv.range(with(&token, range("x"))).await, Code::PermissionDenied, denied);
    let invalid = kv.range(with("abc.1", range("u1"))).await;
    assert_refused(invalid, Code::Unauthenticated, "etcdserver: invalid auth token");
    let add = auth.user_add(with(&token, user("v", "x"))).await;
    assert_refused(add, Code::PermissionDenied, denied);
    let root = login(&mut auth, "root", "secret").await;
    kv.put(with(&root, put("x", "x"))).await.unwrap();
    let defragment = pb::DefragmentRequest {};
    let mut maintenance = fixture.client.maintenance.clone();
    let refused = maintenance.defragment(with(&token, defragment)).await;
    assert_refused(refused, Code::PermissionDenied, denied);
    maintenance.defragment(with(&root, defragment)).await.unwrap();
    let own = pb::AuthUserGetRequest { name: "u".to_owned() };
    let own = auth.user_get(with(&token, own)).await.unwrap().into_inner();
    assert_eq!(own.roles, ["r"]);
    auth.auth_disable(with(&root, pb::AuthDisableRequest {})).await.unwrap();
    kv.put(put("y", "x")).await.unwrap();
}

#[tokio::test]
async fn a_changed_password_ends_tokens() {
    let (fixture, mut auth) = enabled().await;
    let token = login(&mut auth, "u", "pass").await;
    let root = login(&mut auth, "root", "secret").await;
    let change = pb::AuthUserChangePasswordRequest {
        name: "u".to_owned(),
        password: "new".to_owned(),
        ..Default::default()
    };
    auth.user_change_password(with(&root, change)).await.unwrap();
    let refused = fixture.client.kv.clone().put(with(&token, put("u", "x"))).await;
    assert_refused(refused, Code::Unauthenticated, "etcdserver: invalid auth token");
    let token = login(&mut auth, "u", "new").await;
    fixture.client.kv.clone().put(with(&token, put("u", "x"))).await.unwrap();
}

#[tokio::test]
async fn watches_are_refused_in_their_stream() {
    let (fixture, mut auth) = enabled().await;
    let token = login(&mut auth, "u", "pass").await;
    let create = |key: &str| {
        let create = pb::WatchCreateRequest { key: bytes(key), ..Default::default() };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        pb::WatchRequest { request_union: Some(union) }
    };
    let requests = tokio_stream::iter([create("x"), create("u")]);
    let mut watch = fixture.client.watch.clone();
    let mut answers = watch.watch(with(&token, requests)).await.unwrap().into_inner();
    let refused = answers.message().await.unwrap().unwrap();
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
    let text = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    assert_eq!(refused.cancel_reason, text);
    let created = answers.message().await.unwrap().unwrap();
    assert!(created.created && !created.canceled);
}

#[tokio::test]
async fn tokens_are_taken_over_json() {
    let (fixture, mut auth) = enabled().await;
    let body = json!({ "name": "u", "password": "pass" });
    let (status, answer) = call(&fixture, "/v3/auth/authenticate", &body).await;
    assert_eq!(status, 200, "{answer}");
    let body = json!({ "key": "dQ==" });
    let (status, refused) = call(&fixture, "/v3/kv/range", &body).await;
    assert_eq!((status, &refused["code"]), (400, &json!(3)));
    let token = answer["token"].as_str().unwrap();
    let (status, found) = super::gateway::call_as(&fixture, "/v3/kv/range", &body, token).await;
    assert_eq!(status, 200, "{found}");
    assert!(!login(&mut auth, "u", "pass").await.is_empty());
}

#[tokio::test]
async fn a_lease_is_renewed_by_who_may_write_its_keys() {
    let (fixture, mut auth) = enabled().await;
    let root = login(&mut auth, "root", "secret").await;
    let token = login(&mut auth, "u", "pass").await;
    let (mut lease, mut kv) = (fixture.client.lease.clone(), fixture.client.kv.clone());
    for id in [5, 6, 7] {
        let grant = pb::LeaseGrantRequest { id, ttl: 60 };
        lease.lease_grant(with(&root, grant)).await.unwrap();
    }
    kv.put(with(&root, pb::PutRequest { lease: 5, ..put("u1", "x") })).await.unwrap();
    kv.put(with(&root, pb::PutRequest { lease: 6, ..put("u2", "x") })).await.unwrap();
    kv.put(with(&root, pb::PutRequest { lease: 6, ..put("x", "x") })).await.unwrap();
    let renew = async |token: Option<&str>, id| {
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let request = match token {
            Some(token) => with(token, requests),
            None => Request::new(requests),
        };
        let answers = fixture.client.lease.clone().lease_keep_alive(request).await;
        answers.unwrap().into_inner().message().await.map(|answer| answer.unwrap().ttl)
    };
    for id in [5, 7, 99] {
        let text = "etcdserver: user name is empty";
        assert_refused(renew(None, id).await, Code::InvalidArgument, text);
        let text = "etcdserver: invalid auth token";
        assert_refused(renew(Some("abc.1"), id).await, Code::Unauthenticated, text);
    }
    assert_eq!(renew(Some(&token), 5).await.unwrap(), 60);
    assert_eq!(renew(Some(&token), 7).await.unwrap(), 60);
    assert_eq!(renew(Some(&token), 99).await.unwrap(), 0);
    let text = "etcdserver: permission denied";
    assert_refused(renew(Some(&token), 6).await, Code::PermissionDenied, text);
    assert_eq!(renew(Some(&root), 6).await.unwrap(), 60);
}

#[tokio::test]
async fn a_password_is_changed_to_a_given_hash_or_to_none_that_fits() {
    let (_fixture, mut auth) = enabled().await;
    let root = login(&mut auth, "root", "secret").await;
    let change = |password: &str, hashed_password: &str| {
        let change = pb::AuthUserChangePasswordRequest {
            name: "u".to_owned(),
            password: password.to_owned(),
            hashed_password: hashed_password.to_owned(),
        };
        with(&root, change)
    };
    let hash = BASE64_STANDARD.encode(bcrypt::hash("hashed", 4).unwrap());
    auth.user_change_password(change("", &hash)).await.unwrap();
    assert!(!login(&mut auth, "u", "hashed").await.is_empty());
    auth.user_change_password(change("given", &hash)).await.unwrap();
    assert!(!login(&mut auth, "u", "given").await.is_empty());
    let refused = auth.user_change_password(change("", "no base64!")).await;
    let text = "auth: authentication failed, password was given for no password user";
    assert_refused(refused, Code::Unknown, text);
    assert!(!login(&mut auth, "u", "given").await.is_empty());
    auth.user_change_password(change("", "")).await.unwrap();
    for password in ["", "given", "hashed"] {
        let name = "u".to_owned();
        let request = pb::AuthenticateRequest { name, password: password.to_owned() };
        let text = "etcdserver: authentication failed, invalid user ID or password";
        assert_refused(auth.authenticate(request).await, Code::InvalidArgument, text);
    }
}

#[tokio::test]
async fn members_are_listed_for_any_user() {
    let (fixture, mut auth) = enabled().await;
    let mut cluster = fixture.client.cluster.clone();
    let list = pb::MemberListRequest { linearizable: true };
    let text = "etcdserver: user name is empty";
    assert_refused(cluster.member_list(list).await, Code::InvalidArgument, text);
    let token = login(&mut auth, "u", "pass").await;
    let listed = cluster.member_list(with(&token, list)).await.unwrap().into_inner();
    assert_eq!(listed.members.len(), 1);
}
