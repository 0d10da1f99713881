use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::inspect::Facts;
use super::token::{Token, TokenError, ca_hash, generate_password};
use super::tree::{Owner, Tree, member_id_of, member_name_for};
use super::*;
use crate::secret::Secret;

const HASH: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn owner() -> Owner {
    Owner {
        node_name: "server1".into(),
        member_name: "server1-0123abcd".into(),
        member_id: 0xfeed,
        sans: vec!["server1".into(), "127.0.0.1".into(), "::1".into()],
        peer_addresses: vec!["127.9.0.1".into()],
    }
}

#[test]
fn tokens_are_taken_apart_as_k3s_does() {
    let full = Token::parse(&format!("K10{HASH}::server:s3cret\n")).unwrap();
    assert_eq!(full.ca_hash.as_deref(), Some(HASH));
    assert_eq!((full.user.as_str(), full.password.expose()), ("server", "s3cret"));
    assert_eq!(full.text().expose(), format!("K10{HASH}::server:s3cret"));

    let short = Token::parse("s3cret").unwrap();
    assert_eq!((short.ca_hash, short.password.expose()), (None, "s3cret"));
    let with_colon = Token::parse(&format!("K10{HASH}::server:a:b")).unwrap();
    assert_eq!(with_colon.password.expose(), "a:b");

    for (text, error) in [
        ("", "token must not be empty"),
        ("  \n", "token must not be empty"),
        ("K10abc::server:x", "invalid token CA hash length"),
        (&format!("K10{}::server:x", "z".repeat(64)), "invalid token CA hash length"),
        (&format!("K10{HASH}::server"), "invalid token format"),
        (&format!("K10{HASH}::server:"), "invalid token format"),
        (&format!("K10{HASH}::server:a b"), "invalid token format"),
        (&format!("K10{HASH}"), "invalid token format"),
        ("two words", "invalid token format"),
    ] {
        assert_eq!(Token::parse(text).unwrap_err().to_string(), error, "{text:?}");
    }
}

#[test]
fn a_token_never_shows_its_password() {
    let token = Token::parse(&format!("K10{HASH}::server:hunter2")).unwrap();
    assert!(!format!("{token:?}").contains("hunter2"));
}

#[test]
fn the_pin_holds_for_one_ca_only() {
    let token = Token::full("hello", "server", Secret::new("x"));
    assert_eq!(token.ca_hash.as_deref(), Some(HASH));
    assert_eq!(token.check_ca("hello"), Ok(()));
    assert_eq!(
        token.check_ca("hello\n"),
        Err(TokenError::WrongCa { token: HASH.into(), found: ca_hash("hello\n") })
    );
    assert_eq!(Token::parse("short").unwrap().check_ca("hello"), Err(TokenError::NoHash));
}

#[test]
fn passwords_have_128_bits_and_differ() {
    let (one, two) = (generate_password().unwrap(), generate_password().unwrap());
    assert_eq!(one.expose().len(), 32);
    assert_ne!(one, two);
}

#[test]
fn every_file_is_private_whatever_was_there() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("server/tls")).unwrap();
    std::fs::set_permissions(
        directory.path().join("server/tls"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let tree = Tree::new(directory.path());
    let authorities = tree.create_authorities().unwrap();
    tree.leaves(&authorities, &owner()).unwrap();

    let mut checked = 0;
    for folder in ["", "etcd"] {
        let folder = tree.root().join(folder);
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", path.display());
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 17);

    let key = tree.root().join("client-admin.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    tree.leaves(&authorities, &owner()).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn leaves_stay_until_something_about_them_changes() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::new(directory.path());
    assert!(tree.authorities().unwrap().is_none());
    let authorities = tree.create_authorities().unwrap();
    let first = tree.leaves(&authorities, &owner()).unwrap();
    let read = tree.authorities().unwrap().unwrap();
    let again = tree.leaves(&read, &owner()).unwrap();
    assert_eq!(first.serving.certificate, again.serving.certificate);

    let mut renamed = owner();
    renamed.sans.push("lb.example".into());
    let changed = tree.leaves(&read, &renamed).unwrap();
    assert_ne!(first.serving.certificate, changed.serving.certificate);
    assert_eq!(first.peer.certificate, changed.peer.certificate);
    let facts = Facts::from_pem(&changed.serving.certificate).unwrap();
    assert_eq!(facts.sans, ["127.0.0.1", "::1", "lb.example", "server1"]);
}

#[test]
fn a_peer_certificate_proves_the_members_number() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::new(directory.path());
    let authorities = tree.create_authorities().unwrap();
    let leaves = tree.leaves(&authorities, &owner()).unwrap();
    let facts = Facts::from_pem(&leaves.peer.certificate).unwrap();
    assert_eq!(facts.common_name, "server1-0123abcd");
    assert_eq!(member_id_of(&facts), Some(0xfeed));
    assert_eq!(member_name_for(0xfeed), "000000000000feed.member.k3sup");
    let serving = Facts::from_pem(&leaves.serving.certificate).unwrap();
    assert_eq!(member_id_of(&serving), None);
}

#[test]
fn half_a_pair_is_told_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::new(directory.path());
    tree.create_authorities().unwrap();
    std::fs::remove_file(tree.root().join("etcd/peer-ca.key")).unwrap();
    let error = tree.authorities().unwrap_err().to_string();
    assert!(error.contains("etcd/peer-ca.key is missing"), "{error}");
}

#[test]
fn tls_configurations_can_be_built_from_the_tree() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::new(directory.path());
    let authorities = tree.create_authorities().unwrap();
    let leaves = tree.leaves(&authorities, &owner()).unwrap();
    let ca = authorities.client.certificate();
    for auth in [tls::ClientAuth::Required, tls::ClientAuth::Optional] {
        let config = tls::server(&leaves.serving, ca, auth, &tls::ALPN_HTTP).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
    tls::client(authorities.server.certificate(), Some(&leaves.admin), &[]).unwrap();
    assert!(tls::client("not pem", None, &[]).is_err());
}

#[test]
fn a_certificate_that_is_replaced_is_shown_by_what_was_built_before() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::new(directory.path());
    let authorities = tree.create_authorities().unwrap();
    let first = tree.leaves(&authorities, &owner()).unwrap();
    let mut renamed = owner();
    renamed.sans.push("lb.example".into());
    let second = tree.leaves(&authorities, &renamed).unwrap();

    let ca = authorities.client.certificate();
    let shown = tls::Shown::new(&first.serving).unwrap();
    let auth = tls::ClientAuth::Optional;
    let server = tls::server_showing(Arc::clone(&shown), ca, auth, &[]).unwrap();
    let client = tls::client(authorities.server.certificate(), None, &[]).unwrap();
    let seen = |server: &Arc<rustls::ServerConfig>| {
        let name = "server1".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(&client), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
        let mut bytes = Vec::new();
        while client.is_handshaking() {
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().unwrap();
            bytes.clear();
        }
        client.peer_certificates().unwrap()[0].to_vec()
    };
    let der = |pem: &str| tls::certificates(pem).unwrap()[0].to_vec();
    assert_eq!(seen(&server), der(&first.serving.certificate));
    shown.replace(&second.serving).unwrap();
    assert_eq!(seen(&server), der(&second.serving.certificate));
}

#[test]
fn a_file_that_is_as_it_should_be_is_left_alone() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let inode = || std::fs::metadata(&path).unwrap().ino();
    files::write(&path, b"one", 0o600).unwrap();
    // Kept open, so that its number is not given to another file.
    let first = (std::fs::File::open(&path).unwrap(), inode());
    files::write(&path, b"one", 0o600).unwrap();
    assert_eq!(inode(), first.1);
    files::write(&path, b"one", 0o640).unwrap();
    assert_ne!(inode(), first.1);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    files::write(&path, b"two", 0o640).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
}
