//! The files of a CA roll-over, under `<data-dir>/server/tls`.
//!
//! `next/` has the CAs that are to come, `previous/` the certificates (no keys) of those that were.
//! Which of them are there says how far the roll-over is: `next` alone: both are believed, the old
//! ones sign; `previous` alone: both are believed, the new ones sign. Both at once: a crash in the
//! middle of the exchange, which [`Tree::finish_exchange`] ends. All three steps are atomic.

use std::fs;
use std::io;
use std::path::Path;

use super::files;
use super::tree::{Authorities, CLIENT_CA, PEER_CA, SERVER_CA, Tree, TreeError};

/// PEM texts of the CAs that are believed, the one that signs first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Believed {
    /// For servers' certificates.
    pub server: String,
    /// For clients'.
    pub client: String,
    /// For members'.
    pub peer: String,
}

impl Tree {
    /// The CAs that are to come.
    pub fn next(&self) -> Result<Option<Authorities>, TreeError> {
        self.beside("next").authorities()
    }

    /// The certificates of the CAs that were: server, client, peer.
    pub fn previous(&self) -> io::Result<Option<[String; 3]>> {
        let tree = self.beside("previous");
        if !tree.root().exists() {
            return Ok(None);
        }
        let read = |name: &str| fs::read_to_string(tree.certificate_path(name));
        Ok(Some([read(SERVER_CA)?, read(CLIENT_CA)?, read(PEER_CA)?]))
    }

    /// Keeps the CAs that are to come: those given, or new ones.
    pub fn prepare_next(&self, given: Option<&Authorities>) -> Result<(), TreeError> {
        let half = self.beside("next.tmp");
        remove(half.root())?;
        match given {
            Some(authorities) => half.write_authorities(authorities)?,
            None => half.create_authorities().map(drop)?,
        }
        fs::rename(half.root(), self.beside("next").root())?;
        Ok(sync(self.root())?)
    }

    /// Makes the CAs that are to come those that sign.
    pub fn exchange(&self, current: &Authorities) -> Result<(), TreeError> {
        let half = self.beside("previous.tmp");
        remove(half.root())?;
        half.prepare()?;
        let pairs =
            [(SERVER_CA, &current.server), (CLIENT_CA, &current.client), (PEER_CA, &current.peer)];
        for (name, authority) in pairs {
            let pem = authority.certificate().as_bytes();
            files::write_private(&half.certificate_path(name), pem)?;
        }
        fs::rename(half.root(), self.beside("previous").root())?;
        sync(self.root())?;
        self.finish_exchange().map(drop)
    }

    /// Ends an exchange that a crash interrupted; whether there was one.
    pub fn finish_exchange(&self) -> Result<bool, TreeError> {
        if !self.beside("previous").root().exists() {
            return Ok(false);
        }
        let Some(next) = self.next()? else { return Ok(false) };
        self.write_authorities(&next)?;
        remove(self.beside("next").root())?;
        Ok(true)
    }

    /// Forgets the CAs that were.
    pub fn forget_previous(&self) -> io::Result<()> {
        let gone = self.beside("previous.gone");
        remove(gone.root())?;
        fs::rename(self.beside("previous").root(), gone.root())?;
        sync(self.root())?;
        remove(gone.root())
    }

    /// Whom this server believes, now that `current` sign.
    pub fn believed(&self, current: &Authorities) -> Result<Believed, TreeError> {
        let mut believed = Believed {
            server: current.server.certificate().to_owned(),
            client: current.client.certificate().to_owned(),
            peer: current.peer.certificate().to_owned(),
        };
        if let Some(next) = self.next()? {
            believed.server.push_str(next.server.certificate());
            believed.client.push_str(next.client.certificate());
            believed.peer.push_str(next.peer.certificate());
        }
        if let Some([server, client, peer]) = self.previous()? {
            believed.server.push_str(&server);
            believed.client.push_str(&client);
            believed.peer.push_str(&peer);
        }
        Ok(believed)
    }

    fn beside(&self, name: &str) -> Self {
        Self::at(self.root().join(name))
    }
}

/// Removes a directory with all in it. Nothing there is fine.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::token::ca_hash;

    #[test]
    fn the_files_say_how_far_it_is_and_a_crash_in_the_exchange_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        let old = tree.create_authorities().unwrap();
        let count = |tree: &Tree, current: &Authorities| {
            tree.believed(current).unwrap().server.matches("BEGIN CERTIFICATE").count()
        };
        assert_eq!(count(&tree, &old), 1);
        assert!(!tree.finish_exchange().unwrap());
        tree.prepare_next(None).unwrap();
        assert_eq!(count(&tree, &old), 2);
        let next = tree.next().unwrap().unwrap();
        // As after a crash: `previous` is there, and nothing was written over.
        tree.exchange(&old).unwrap();
        tree.write_authorities(&old).unwrap();
        tree.prepare_next(Some(&next)).unwrap();
        assert!(tree.finish_exchange().unwrap());
        let now = tree.authorities().unwrap().unwrap();
        assert_eq!(ca_hash(now.server.certificate()), ca_hash(next.server.certificate()));
        assert!(tree.next().unwrap().is_none());
        let believed = tree.believed(&now).unwrap();
        assert!(believed.peer.starts_with(now.peer.certificate()));
        assert!(believed.peer.ends_with(old.peer.certificate()));
        tree.forget_previous().unwrap();
        assert_eq!(count(&tree, &now), 1);
        assert!(tree.previous().unwrap().is_none());
    }
}
