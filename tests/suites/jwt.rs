//! `k3sup-rs etcd --auth-token=jwt,…` beside a real etcd with the same keys: each believes the other's
//! tokens, and both refuse the same ones in the same words.

use crate::support;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::etcd::{Etcd, server};
use crate::support::member::{Alone, Member};
use k3sup_rs::rpc::pb::authpb::{Permission, permission};
use k3sup_rs::rpc::pb::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long tokens hold here: longer than any test takes …
const TTL: Duration = Duration::from_secs(600);

/// … but for those whose end is waited for.
const SHORT: Duration = Duration::from_secs(4);

fn key(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jwt").join(name);
    path.to_str().unwrap().to_owned()
}

/// `--auth-token` for a method with its keys.
fn flag(method: &str, private: Option<&str>, public: Option<&str>) -> String {
    flag_for(TTL, method, private, public)
}

/// The same for tokens that hold so long.
fn flag_for(ttl: Duration, method: &str, private: Option<&str>, public: Option<&str>) -> String {
    let mut flag = format!("--auth-token=jwt,sign-method={method},ttl={}s", ttl.as_secs());
    for (name, file) in [("priv-key", private), ("pub-key", public)] {
        if let Some(file) = file {
            flag = format!("{flag},{name}={}", key(file));
        }
    }
    flag
}

/// A server of either kind, with users.
struct Side {
    channel: Channel,
    _ours: Option<Alone>,
    _real: Option<Etcd>,
}

impl Side {
    async fn new(url: String, ours: Option<Alone>, real: Option<Etcd>) -> Self {
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let side = Self { channel, _ours: ours, _real: real };
        side.prepare().await;
        side
    }

    async fn ours(address: &str, flag: &str) -> Self {
        let ours = Alone::start_with(address, &[flag]);
        Self::new(ours.url.clone(), Some(ours), None).await
    }

    async fn real(address: &str, flag: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let real = Etcd::start_with(dir, address, &[flag])?;
        Some(Self::new(real.url.clone(), None, Some(real)).await)
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    /// Root, and `u` who may read and write `u`.
    async fn prepare(&self) {
        let mut auth = self.auth();
        for (name, role) in [("root", "root"), ("u", "r")] {
            let (name, role) = (name.to_owned(), role.to_owned());
            let user = pb::AuthUserAddRequest {
                name: name.clone(),
                password: "p".into(),
                ..Default::default()
            };
            auth.user_add(user).await.unwrap();
            auth.role_add(pb::AuthRoleAddRequest { name: role.clone() }).await.unwrap();
            let perm = Permission {
                perm_type: permission::Type::Readwrite.into(),
                key: "u".into(),
                ..Default::default()
            };
            let grant = pb::AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
            auth.role_grant_permission(grant).await.unwrap();
            auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name, role }).await.unwrap();
        }
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    }

    async fn login(&self, name: &str, password: &str) -> Result<String, Status> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let answer = self.auth().authenticate(pb::AuthenticateRequest { name, password }).await;
        Ok(answer?.into_inner().token)
    }

    async fn put(&self, token: &str, key: &'static str) -> Result<(), Status> {
        let put = pb::PutRequest { key: key.into(), value: "x".into(), ..Default::default() };
        KvClient::new(self.channel.clone()).put(with(token, put)).await.map(drop)
    }

    /// What is told of a token by calls of every kind of check.
    async fn judge(&self, token: &str) -> Vec<Option<(Code, String)>> {
        let range = pb::RangeRequest { key: "u".into(), serializable: true, ..Default::default() };
        let ranged = KvClient::new(self.channel.clone()).range(with(token, range)).await.map(drop);
        let users = self.auth().user_list(with(token, pb::AuthUserListRequest {})).await.map(drop);
        let answers = [self.put(token, "u").await, self.put(token, "v").await, ranged, users];
        let told = |answer: Result<(), Status>| {
            answer.err().map(|status| (status.code(), status.message().to_owned()))
        };
        answers.into_iter().map(told).collect()
    }
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

fn invalid() -> (Code, String) {
    (Code::Unauthenticated, "etcdserver: invalid auth token".to_owned())
}

#[tokio::test]
async fn each_believes_the_tokens_of_the_other() {
    for (number, (method, private, public)) in [
        ("RS256", "rsa.key", Some("rsa.pub")),
        ("PS384", "rsa-other.key", None),
        ("ES256", "p256.key", Some("p256.pub")),
        ("ES512", "p521.key", None),
        ("HS512", "hmac.secret", None),
    ]
    .into_iter()
    .enumerate()
    {
        let flag = flag(method, Some(private), public);
        let address = |host: u8| format!("127.104.{number}.{host}");
        let Some(real) = Side::real(&address(1), &flag).await else { return };
        let ours = Side::ours(&address(2), &flag).await;
        for (maker, other) in [(&ours, &real), (&real, &ours)] {
            for name in ["u", "root"] {
                let token = maker.login(name, "p").await.unwrap();
                let judged = other.judge(&token).await;
                assert_eq!(judged, maker.judge(&token).await, "{method}");
                assert_eq!(judged[0], None, "{method}: {name}");
                assert_eq!(judged[1].is_none(), name == "root", "{method}: {judged:?}");
            }
        }
    }
}

#[tokio::test]
async fn both_refuse_the_same_tokens_in_the_same_words() {
    let given = flag("RS256", Some("rsa.key"), Some("rsa.pub"));
    let Some(real) = Side::real("127.97.0.1", &given).await else { return };
    let ours = Side::ours("127.97.0.2", &given).await;
    let stranger = Side::ours("127.97.0.3", &flag("RS256", Some("rsa-other.key"), None)).await;
    let (good, other) =
        (real.login("u", "p").await.unwrap(), ours.login("root", "p").await.unwrap());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let (_, foreign) = other.rsplit_once('.').unwrap();
    for bad in [
        stranger.login("u", "p").await.unwrap(),
        format!("{body}.{foreign}"),
        format!("{body}."),
        body.to_owned(),
        format!("{signature}.{signature}.{signature}"),
        "abcdefghijklmnop.12".to_owned(),
        String::new(),
    ] {
        let judged = ours.judge(&bad).await;
        assert_eq!(judged, real.judge(&bad).await, "{bad}");
        assert_eq!(judged[0], Some(invalid()), "{bad}");
    }
    let told = |answer: Result<String, Status>| {
        let status = answer.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    assert_eq!(told(ours.login("u", "no").await), told(real.login("u", "no").await));

    // Of a revision before the present one.
    for side in [&ours, &real] {
        let user = pb::AuthUserAddRequest { name: "w".into(), ..Default::default() };
        let root = side.login("root", "p").await.unwrap();
        side.auth().user_add(with(&root, user)).await.unwrap();
    }
    for old in [&good, &other] {
        let judged = ours.judge(old).await;
        assert_eq!(judged, real.judge(old).await);
        let text = "etcdserver: revision of auth store is old";
        assert_eq!(judged[0], Some((Code::InvalidArgument, text.to_owned())));
    }
}

#[tokio::test]
async fn both_refuse_a_token_past_its_end() {
    let given = flag_for(SHORT, "RS256", Some("rsa.key"), Some("rsa.pub"));
    let Some(real) = Side::real("127.97.0.4", &given).await else { return };
    let ours = Side::ours("127.97.0.5", &given).await;
    let fresh = [ours.login("root", "p").await.unwrap(), real.login("root", "p").await.unwrap()];
    tokio::time::sleep(SHORT + Duration::from_secs(1)).await;
    for ended in &fresh {
        let judged = ours.judge(ended).await;
        assert_eq!(judged, real.judge(ended).await);
        assert!(judged.iter().all(|told| *told == Some(invalid())), "{judged:?}");
    }
}

#[tokio::test]
async fn with_a_public_key_alone_tokens_are_checked_and_none_is_made() {
    let both = flag("ES384", Some("p384.key"), None);
    let checks = flag("ES384", None, Some("p384.pub"));
    let Some(real) = Side::real("127.98.0.1", &checks).await else { return };
    let ours = Side::ours("127.98.0.2", &checks).await;
    let maker = Side::ours("127.98.0.3", &both).await;
    let token = maker.login("u", "p").await.unwrap();
    assert_eq!(ours.judge(&token).await, real.judge(&token).await);
    ours.put(&token, "u").await.unwrap();
    for password in ["p", "no"] {
        let (own, etcds) = (ours.login("u", password).await, real.login("u", password).await);
        let (own, etcds) = (own.unwrap_err(), etcds.unwrap_err());
        assert_eq!((own.code(), own.message()), (etcds.code(), etcds.message()));
    }
}

#[test]
fn options_that_cannot_be_meant_are_refused_at_the_start() {
    let rsa = format!("pub-key={},priv-key={}", key("rsa.pub"), key("rsa.key"));
    let gone = format!("jwt,sign-method=RS256,priv-key={}", key("gone.key"));
    for (number, (value, text)) in [
        ("jwt,sign-method=RS256".to_owned(), "auth: missing key data"),
        ("jwt,sign-method=HS256".to_owned(), "auth: missing key data"),
        (format!("jwt,{rsa}"), "auth: invalid auth options"),
        (format!("jwt,sign-method=XX256,{rsa}"), "auth: invalid auth options"),
        (format!("jwt,sign-method=EdDSA,{rsa}"), "unsupported signing method: "),
        (gone, "auth: invalid auth options"),
        ("tokens".to_owned(), "auth: invalid auth options"),
        ("jwt,sign-method".to_owned(), "auth: invalid auth options"),
    ]
    .into_iter()
    .enumerate()
    {
        let directory = tempfile::tempdir().unwrap();
        let flag = format!("--auth-token={value}");
        let own = Member::start(support::BINARY.as_ref(), directory.path(), &["etcd", &flag], &[]);
        let said = own.ended();
        assert!(said.contains(&format!("--auth-token: {text}")) || said.contains(text), "{said}");
        let Some(etcd) = server() else { continue };
        let url = format!("http://127.99.{number}.1:0");
        let output = Command::new(etcd)
            .args([&flag, "--listen-peer-urls", &url, "--listen-client-urls", &url])
            .args(["--advertise-client-urls", &url, "--data-dir", "real"])
            .current_dir(directory.path())
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = support::etcd::text(&output);
        assert!(said.contains(text), "{value}: {said}");
    }
}
