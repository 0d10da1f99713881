//! The files under `<data-dir>/server/tls`: CAs that stay, leaves that are renewed at start.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::authority::{Authority, KeyPairPem, Leaf, Purpose};
use super::inspect::Facts;
use super::{PkiError, files};
use crate::cluster::view::CertificateView;
use crate::secret::Secret;
use crate::store::types::MemberId;

/// A leaf with fewer days left is made anew at start: K3s's `CertificateRenewDays`.
pub const RENEW_DAYS: u64 = 120;

/// Organisation of a certificate that may do everything: Kubernetes' name for it.
pub const ADMIN_GROUP: &str = "system:masters";

/// Organisation of a server that asks another.
pub const SERVER_GROUP: &str = "system:servers";

/// Organisation of an agent.
pub const NODE_GROUP: &str = "system:nodes";

/// What the common name of an agent's certificate begins with; the node's name follows.
pub const NODE_PREFIX: &str = "system:node:";

/// What the name that proves a member's number ends with.
const MEMBER_DOMAIN: &str = ".member.k3sup";

/// The name in a member's peer certificate that proves its number. Who dials a member expects it,
/// so that an address that changed hands is noticed.
pub fn member_name_for(id: MemberId) -> String {
    format!("{id:016x}{MEMBER_DOMAIN}")
}

/// The member's number that a peer certificate proves.
pub fn member_id_of(facts: &Facts) -> Option<MemberId> {
    facts.sans.iter().find_map(|name| {
        let digits = name.strip_suffix(MEMBER_DOMAIN)?;
        MemberId::from_str_radix(digits, 16).ok().filter(|id| *id != 0)
    })
}

/// Why the tree could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The file system says no. The path is in the error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file does not hold what it should.
    #[error("{path}: {source}")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: PkiError,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Half of a pair is missing.
    #[error("{0} is missing; copy it from another server of the cluster, or start with empty data")]
    Missing(PathBuf),
}

/// The three CAs.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Signs what clients verify.
    pub server: Authority,
    /// Signs who may ask.
    pub client: Authority,
    /// Signs members.
    pub peer: Authority,
}

/// Whose leaves to make.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The node's name.
    pub node_name: String,
    /// The member's name.
    pub member_name: String,
    /// The member's number.
    pub member_id: MemberId,
    /// All names and addresses that clients may use for this server.
    pub sans: Vec<String>,
    /// The addresses that members use for it.
    pub peer_addresses: Vec<String>,
}

/// The leaves of a server.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// Answers on the client API and the supervisor.
    pub serving: KeyPairPem,
    /// Both ways between members.
    pub peer: KeyPairPem,
    /// The administrator's, for the client bundle.
    pub admin: KeyPairPem,
    /// Asks other servers' supervisors.
    pub supervisor: KeyPairPem,
}

/// The tree of one data directory.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

pub(super) const SERVER_CA: &str = "server-ca";
pub(super) const CLIENT_CA: &str = "client-ca";
pub(super) const PEER_CA: &str = "etcd/peer-ca";
const SERVING: &str = "etcd/server-client";
const PEER: &str = "etcd/peer-server-client";
const ADMIN: &str = "client-admin";
const SUPERVISOR: &str = "client-supervisor";

impl Tree {
    /// The tree under `data_dir`; touches nothing.
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("server/tls") }
    }

    /// A tree whose files are in `root` itself.
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// `<data-dir>/server/tls`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The CA that clients verify servers with.
    pub fn server_ca_path(&self) -> PathBuf {
        self.root.join(format!("{SERVER_CA}.crt"))
    }

    /// All CAs that clients may verify servers with: in the middle of a roll-over there are two.
    pub fn believed_path(&self) -> PathBuf {
        self.root.join("server-ca-bundle.crt")
    }

    /// The administrator's certificate and key.
    pub fn admin_paths(&self) -> (PathBuf, PathBuf) {
        (self.certificate_path(ADMIN), self.key_path(ADMIN))
    }

    /// Makes the directories 0700 and corrects what others could enter.
    pub fn prepare(&self) -> io::Result<()> {
        if let Some(server) = self.root.parent() {
            files::private_directory(server)?;
        }
        files::private_directory(&self.root)?;
        files::private_directory(&self.root.join("etcd"))
    }

    /// The CAs on disk; `None` when there are none at all.
    pub fn authorities(&self) -> Result<Option<Authorities>, TreeError> {
        let found = [SERVER_CA, CLIENT_CA, PEER_CA]
            .map(|name| self.certificate_path(name).exists() || self.key_path(name).exists());
        if !found.contains(&true) {
            return Ok(None);
        }
        let read = |name| {
            let pair = self.read(name)?.ok_or_else(|| TreeError::Missing(self.key_path(name)))?;
            Authority::from_pem(pair)
                .map_err(|source| TreeError::Content { path: self.certificate_path(name), source })
        };
        Ok(Some(Authorities {
            server: read(SERVER_CA)?,
            client: read(CLIENT_CA)?,
            peer: read(PEER_CA)?,
        }))
    }

    /// Makes new CAs and writes them.
    pub fn create_authorities(&self) -> Result<Authorities, TreeError> {
        let authorities = Authorities {
            server: Authority::create("k3sup-server-ca")?,
            client: Authority::create("k3sup-client-ca")?,
            peer: Authority::create("k3sup-peer-ca")?,
        };
        self.write_authorities(&authorities)?;
        Ok(authorities)
    }

    /// Writes CAs: those just made, or those of the cluster that is joined.
    pub fn write_authorities(&self, authorities: &Authorities) -> Result<(), TreeError> {
        self.prepare()?;
        self.write(CLIENT_CA, authorities.client.pair())?;
        self.write(PEER_CA, authorities.peer.pair())?;
        self.write(SERVER_CA, authorities.server.pair())
    }

    /// The leaves of `owner`: those on disk where they still fit, new ones where a leaf is missing,
    /// about to expire, from another CA or for other names.
    pub fn leaves(&self, authorities: &Authorities, owner: &Owner) -> Result<Leaves, TreeError> {
        self.make_leaves(authorities, owner, false)
    }

    /// New leaves of `owner`, whatever is on disk.
    pub fn new_leaves(
        &self,
        authorities: &Authorities,
        owner: &Owner,
    ) -> Result<Leaves, TreeError> {
        self.make_leaves(authorities, owner, true)
    }

    fn make_leaves(
        &self,
        authorities: &Authorities,
        owner: &Owner,
        all: bool,
    ) -> Result<Leaves, TreeError> {
        self.prepare()?;
        let mut peer_sans = owner.peer_addresses.clone();
        peer_sans.push(member_name_for(owner.member_id));
        let leaf = |common_name: &str, group: Option<&str>, sans: &[String], purpose| Leaf {
            common_name: common_name.to_owned(),
            organization: group.map(str::to_owned),
            sans: sans.to_vec(),
            purpose,
        };
        let serving = leaf(&owner.node_name, None, &owner.sans, Purpose::Server);
        let peer = leaf(&owner.member_name, None, &peer_sans, Purpose::Peer);
        let admin = leaf("system:admin", Some(ADMIN_GROUP), &[], Purpose::Client);
        let asking = format!("system:server:{}", owner.node_name);
        let supervisor = leaf(&asking, Some(SERVER_GROUP), &[], Purpose::Client);
        let leaves = Leaves {
            serving: self.ensure(SERVING, &authorities.server, &serving, all)?,
            peer: self.ensure(PEER, &authorities.peer, &peer, all)?,
            admin: self.ensure(ADMIN, &authorities.client, &admin, all)?,
            supervisor: self.ensure(SUPERVISOR, &authorities.client, &supervisor, all)?,
        };
        self.link_etcd_names()?;
        Ok(leaves)
    }

    /// What `status` shows of the certificates here.
    pub fn views(&self) -> Vec<CertificateView> {
        let names = [SERVER_CA, CLIENT_CA, PEER_CA, SERVING, PEER, ADMIN, SUPERVISOR];
        names
            .iter()
            .filter_map(|name| {
                let facts = self.facts(name)?;
                Some(CertificateView {
                    file: format!("server/tls/{name}.crt"),
                    subject: facts.common_name,
                    issuer: facts.issuer,
                    not_after_unix_s: facts.not_after_unix_s,
                })
            })
            .collect()
    }

    fn ensure(
        &self,
        name: &str,
        authority: &Authority,
        leaf: &Leaf,
        anew: bool,
    ) -> Result<KeyPairPem, TreeError> {
        if !anew
            && let Some(pair) = self.read(name)?
            && fits(&pair, authority, leaf)
        {
            return Ok(pair);
        }
        let pair = authority.issue(leaf)?;
        self.write(name, &pair)?;
        Ok(pair)
    }

    /// The names that K3s's documentation gives to etcdctl.
    fn link_etcd_names(&self) -> io::Result<()> {
        let links = [
            ("etcd/server-ca.crt", "../server-ca.crt"),
            ("etcd/client.crt", "../client-admin.crt"),
            ("etcd/client.key", "../client-admin.key"),
        ];
        for (link, target) in links {
            match std::os::unix::fs::symlink(target, self.root.join(link)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn facts(&self, name: &str) -> Option<Facts> {
        let pem = std::fs::read_to_string(self.certificate_path(name)).ok()?;
        Facts::from_pem(&pem).ok()
    }

    fn read(&self, name: &str) -> Result<Option<KeyPairPem>, TreeError> {
        let certificate = files::read_private(&self.certificate_path(name))?;
        let key = files::read_private(&self.key_path(name))?;
        Ok(certificate
            .zip(key)
            .map(|(certificate, key)| KeyPairPem { certificate, key: Secret::new(key) }))
    }

    /// The key first: a certificate without a key is told from a pair that was never made.
    fn write(&self, name: &str, pair: &KeyPairPem) -> Result<(), TreeError> {
        files::write_private(&self.key_path(name), pair.key.expose().as_bytes())?;
        files::write_private(&self.certificate_path(name), pair.certificate.as_bytes())?;
        Ok(())
    }

    pub(super) fn certificate_path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.crt"))
    }

    fn key_path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.key"))
    }
}

/// Whether a pair on disk says what `leaf` says, is from `authority` and lasts long enough.
fn fits(pair: &KeyPairPem, authority: &Authority, leaf: &Leaf) -> bool {
    let (Ok(facts), Ok(issuer)) =
        (Facts::from_pem(&pair.certificate), Facts::from_pem(authority.certificate()))
    else {
        return false;
    };
    let mut sans = leaf.sans.clone();
    sans.sort();
    facts.issuer == issuer.common_name
        && facts.common_name == leaf.common_name
        && facts.organization == leaf.organization.clone().unwrap_or_default()
        && facts.sans == sans
        && facts.days_left(unix_now()) >= RENEW_DAYS
        && super::authority::public_key(&pair.key)
            .is_ok_and(|key| facts_key(&pair.certificate, &key))
}

/// Whether the certificate is for this public key (PEM).
fn facts_key(certificate: &str, public_key: &str) -> bool {
    let (Ok(der), Ok((_, key))) = (
        super::inspect::first_der(certificate),
        x509_parser::pem::parse_x509_pem(public_key.as_bytes()),
    ) else {
        return false;
    };
    x509_parser::parse_x509_certificate(&der)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.contents)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
