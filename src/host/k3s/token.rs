//! K3s's token on a server: which one the cluster has, and another in its place.
//!
//! K3s keeps the token's password, and encrypts what a server needs to enter the cluster with it: the
//! store has that under a key that names the token. A new token is asked for as `k3s token rotate` does,
//! with a PUT to the server, but over a connection of our own: that command has both tokens among its
//! arguments, where every user of the host can read them.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::store;
use crate::cluster::k3s::token::short_hash;
use crate::error::chain;
use crate::host::error::HostResult;
use crate::host::protocol::HostError;
use crate::node::http::{Connector, basic};
use crate::pki::token::SERVER_USER;
use crate::pki::{Token, tls};
use crate::secret::Secret;

/// Where a server takes a new token (`pkg/server/handlers/router.go`).
const PATH: &str = "/v1-k3s/token";

/// How long it may take: the store is written to.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long `k3s token rotate` waits until all members of the store know (`pkg/cli/token/token.go`).
const SETTLING: Duration = Duration::from_secs(1);

/// To [`crate::host::protocol::Read::K3sTokenHash`]: what the store says; without an etcd on this server,
/// what K3s keeps on its disk.
pub(crate) async fn hash(data_dir: &str) -> HostResult<String> {
    let there = |path: &str| Path::new(data_dir).join(path).exists();
    if !there("server/db/etcd/member") || !there("server/tls/etcd/client.crt") {
        return Ok(short_hash(&kept(data_dir)?));
    }
    let failed = |why| HostError::other(format!("cannot ask the store for its token: {why}"));
    let keys = store::bootstrap_keys(data_dir).await.map_err(failed)?;
    match keys.as_slice() {
        [key] => Ok(key.clone()),
        [] => Err(HostError::other("the store has no bootstrap data of K3s")),
        several => {
            let several = several.join(", ");
            Err(HostError::other(format!("the store has bootstrap data of two tokens: {several}"))
                .hint(
                    "remove /bootstrap/… of the one that is over with etcdctl, then run it again",
                ))
        }
    }
}

/// Makes [`crate::host::protocol::Change::RotateK3sToken`].
pub(crate) async fn rotate(data_dir: &str, supervisor: &str, new: &Secret) -> HostResult<()> {
    put(data_dir, supervisor, new).await?;
    tokio::time::sleep(SETTLING).await;
    if hash(data_dir).await? == short_hash(new) {
        return Ok(());
    }
    Err(HostError::other("K3s said that it took the new token, and the store has not")
        .hint("restart K3s on this server, then run it again"))
}

async fn put(data_dir: &str, supervisor: &str, new: &Secret) -> HostResult<()> {
    let failed = |why: String| HostError::other(format!("K3s takes no new token: {why}"));
    let ca = Path::new(data_dir).join("server/tls/server-ca.crt");
    let ca = std::fs::read_to_string(&ca)
        .map_err(|error| HostError::io("read", ca.display(), &error))?;
    let config = tls::client(&ca, None, &[]).map_err(|error| failed(chain(&error)))?;
    let body = Zeroizing::new(serde_json::json!({ "newToken": new.expose() }).to_string());
    let authorization = basic(SERVER_USER, &kept(data_dir)?);
    let connector = Connector::tls(config, TIMEOUT);
    let asked = connector.ask(supervisor, "PUT", PATH, Some(&authorization), body.as_bytes()).await;
    let answer = asked.map_err(|error| failed(format!("{supervisor}: {}", chain(&error))))?;
    match answer.status {
        200 => Ok(()),
        // It shows what it was started with, and writes the file before all else.
        401 | 403 => Err(failed("it does not know the token on its own disk".to_owned())
            .hint("an earlier attempt broke off: restart K3s on this server, then run it again")),
        404 => Err(failed("the K3s that runs has no such request".to_owned())
            .hint("is it older than its binary? `k3sup-rs restart` starts the newer one")),
        status => Err(failed(format!("status {status}: {}", said(&answer.text())))
            .hint("restart K3s on this server, then run it again")),
    }
}

/// The words of an answer in which K3s tells of an error: a Kubernetes `Status`, or plain text.
fn said(text: &str) -> String {
    let status: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let message = status.and_then(|status| Some(status.get("message")?.as_str()?.to_owned()));
    message.unwrap_or_else(|| text.lines().next().unwrap_or_default().to_owned())
}

/// The password that K3s keeps on its disk.
fn kept(data_dir: &str) -> HostResult<Secret> {
    let path = Path::new(data_dir).join("server/token");
    let text = std::fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|error| HostError::io("read", path.display(), &error))?;
    let token = Token::parse(&text)
        .map_err(|error| HostError::other(format!("{}: {error}", path.display())))?;
    Ok(token.password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_k3s_says_is_told_in_its_words() {
        assert_eq!(said(r#"{"kind":"Status","message":"no leader","code":500}"#), "no leader");
        assert_eq!(said("not found\nmore"), "not found");
    }

    #[tokio::test]
    async fn without_a_store_the_disk_tells_which_token_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().to_str().unwrap();
        assert!(hash(data_dir).await.unwrap_err().message.contains("server/token"));
        std::fs::create_dir(dir.path().join("server")).unwrap();
        let text = format!("K10{}::server:secret\n", "ab".repeat(32));
        std::fs::write(dir.path().join("server/token"), text).unwrap();
        assert_eq!(hash(data_dir).await.unwrap(), "2bb80d537b1d");
    }
}
