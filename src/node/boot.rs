//! Which way a server starts: pure, from what is on disk and what is configured.

use super::config::ServerConfig;
use super::identity::{Identity, Phase};
use crate::pki::{Token, TokenError};

/// What a server does first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its data says who it is: it is that member again.
    Resume(Identity),
    /// Begin a new cluster.
    Bootstrap {
        /// Neither `cluster-init` nor `server` was given: a cluster of one, worth a line in the log.
        implicit: bool,
    },
    /// Join the cluster of this token.
    Join(Token),
    /// It was removed from its cluster: set its data aside and join with a fresh number.
    Rejoin(Token),
}

/// Why a server does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartRefusal {
    /// It was removed, and does not know where to join again.
    #[error(
        "tombstone file has been detected but --server is empty: backup and delete \
         ${{datadir}}/server/db to create a new cluster, or set --server to rejoin the cluster"
    )]
    Tombstone,
    /// Nothing to join with.
    #[error("token is required to join a cluster")]
    NoToken,
    /// Both ways at once.
    #[error(
        "--cluster-init and --server are both set and there is no data to decide: take one out"
    )]
    Both,
    /// The token is not one.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The token names a CA that a new cluster cannot have.
    #[error(
        "the token is for a cluster that exists (it has a CA hash), but this server would begin a \
         new one: set --server to join, or give only the part of the token behind `server:`"
    )]
    Pinned,
}

/// Decides. With data on disk, cluster-init, server and token do not count (K3s's rule), except to
/// come back after a removal.
pub fn decide(
    identity: Option<Identity>,
    removed: bool,
    config: &ServerConfig,
) -> Result<Start, StartRefusal> {
    let joins = config.node.server.is_some();
    let token = || {
        let text = config.node.token.as_ref().ok_or(StartRefusal::NoToken)?;
        let token = Token::parse(text.expose())?;
        // Said now, not after the server was asked.
        if token.ca_hash.is_none() { Err(TokenError::NoHash.into()) } else { Ok(token) }
    };
    match identity {
        Some(identity) if !removed => Ok(Start::Resume(identity)),
        Some(_) if joins => token().map(Start::Rejoin),
        Some(_) => Err(StartRefusal::Tombstone),
        None if joins && config.cluster_init => Err(StartRefusal::Both),
        None if joins => token().map(Start::Join),
        None => {
            if let Some(text) = &config.node.token
                && Token::parse(text.expose())?.ca_hash.is_some()
            {
                return Err(StartRefusal::Pinned);
            }
            Ok(Start::Bootstrap { implicit: !config.cluster_init })
        }
    }
}

/// Whether the member has yet to be told that its cluster is new.
pub fn initializes(identity: &Identity) -> bool {
    identity.phase == Phase::Bootstrapping
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::config::Values;
    use super::*;

    type Given<'a> = &'a [(&'static str, &'static str)];

    const FULL: &str =
        "K102cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824::server:x";

    fn config(given: &[(&'static str, &str)]) -> ServerConfig {
        let mut values = vec![("node-name", vec!["s1"]), ("node-ip", vec!["127.9.0.1"])];
        values.extend(given.iter().map(|(name, text)| (*name, vec![*text])));
        let values = Values::from_command_line(values);
        ServerConfig::from_values(&values, Path::new("/x/config.yaml")).unwrap()
    }

    fn identity() -> Identity {
        Identity {
            cluster_id: 1,
            member_id: 2,
            member_name: "s1-00000001".into(),
            phase: Phase::Member,
            supersedes: Vec::new(),
            restore_id: None,
        }
    }

    #[test]
    fn data_on_disk_decides() {
        let here = identity();
        for given in [
            &[][..],
            &[("cluster-init", "true")],
            &[("server", "https://x:1"), ("token", "short")],
            &[("server", "https://x:1"), ("cluster-init", "true")],
            &[("token", FULL)],
        ] {
            let start = decide(Some(here.clone()), false, &config(given));
            assert_eq!(start, Ok(Start::Resume(here.clone())), "{given:?}");
        }
    }

    #[test]
    fn without_data_the_configuration_decides() {
        let server = ("server", "https://x:1");
        let full = Token::parse(FULL).unwrap();
        let cases: &[(Given<'_>, Result<Start, StartRefusal>)] = &[
            (&[], Ok(Start::Bootstrap { implicit: true })),
            (&[("cluster-init", "true")], Ok(Start::Bootstrap { implicit: false })),
            (&[("token", "short")], Ok(Start::Bootstrap { implicit: true })),
            (&[("cluster-init", "true"), ("token", FULL)], Err(StartRefusal::Pinned)),
            (&[server], Err(StartRefusal::NoToken)),
            (&[server, ("token", "short")], Err(TokenError::NoHash.into())),
            (&[server, ("token", FULL)], Ok(Start::Join(full))),
            (&[server, ("cluster-init", "true")], Err(StartRefusal::Both)),
        ];
        for (given, expected) in cases {
            assert_eq!(&decide(None, false, &config(given)), expected, "{given:?}");
        }
    }

    #[test]
    fn a_removed_member_joins_again_or_says_what_to_do() {
        let refused = decide(Some(identity()), true, &config(&[])).unwrap_err();
        assert!(refused.to_string().contains("tombstone file has been detected but --server"));
        assert!(refused.to_string().contains("${datadir}/server/db"));
        let given = [("server", "https://x:1"), ("token", FULL)];
        let start = decide(Some(identity()), true, &config(&given));
        assert_eq!(start, Ok(Start::Rejoin(Token::parse(FULL).unwrap())));
    }
}
