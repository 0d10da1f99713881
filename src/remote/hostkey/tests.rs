//! The decision table, case by case.

use std::path::Path;

use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};

use super::*;

fn key() -> PublicKey {
    key_of(Algorithm::Ed25519)
}

fn key_of(algorithm: Algorithm) -> PublicKey {
    PrivateKey::random(&mut rand::rng(), algorithm).unwrap().public_key().clone()
}

fn text(key: &PublicKey) -> String {
    key.to_openssh().unwrap()
}

fn verdict(file: &str, host: &str, port: u16, key: &PublicKey) -> Verdict {
    decide(&parse(Path::new("kh"), file), host, port, key)
}

#[track_caller]
fn changed_at(verdict: &Verdict, expected: usize) {
    match verdict {
        Verdict::Changed { place, .. } => assert_eq!(place.line, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recorded_key_is_known_and_an_unrecorded_host_is_not() {
    let key = key();
    let file = format!("host {}\n", text(&key));
    assert_eq!(verdict(&file, "host", 22, &key), Verdict::Known);
    assert_eq!(verdict(&file, "other", 22, &key), Verdict::Unknown);
    assert_eq!(verdict("", "host", 22, &key), Verdict::Unknown);
}

#[test]
fn another_type_of_key_is_a_changed_key() {
    let file = format!("host {}\n", text(&key()));
    let ecdsa = key_of(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
    changed_at(&verdict(&file, "host", 22, &ecdsa), 1);
}

#[test]
fn a_revoked_key_is_refused_even_if_it_is_recorded_too() {
    let key = key();
    let file = format!("@revoked * {0}\nhost {0}\n", text(&key));
    assert_eq!(
        verdict(&file, "host", 22, &key),
        Verdict::Revoked(Place { file: "kh".into(), line: 1 })
    );
}

#[test]
fn patterns_count_and_negation_takes_the_line_away() {
    let (known, offered) = (key(), key());
    let file = format!("*.lan,!old.lan,[127.0.0.*]:2222 {}\n", text(&known));
    assert_eq!(verdict(&file, "a.lan", 22, &known), Verdict::Known);
    changed_at(&verdict(&file, "a.lan", 22, &offered), 1);
    changed_at(&verdict(&file, "127.0.0.9", 2222, &offered), 1);
    assert_eq!(verdict(&file, "old.lan", 22, &offered), Verdict::Unknown);
    assert_eq!(verdict(&file, "127.0.0.9", 2200, &offered), Verdict::Unknown);
}

#[test]
fn blanks_tabs_and_case_do_not_hide_a_line() {
    let (known, offered) = (key(), key());
    let tabbed = text(&known).replace(' ', "\t");
    for (file, host) in [
        (format!("host\t{tabbed}\n"), "host"),
        (format!("  \thost {}\n", text(&known)), "host"),
        (format!("localhost {}\n", text(&known)), "LOCALHOST"),
        (format!("LocalHost {}\n", text(&known)), "localhost"),
    ] {
        assert_eq!(verdict(&file, host, 22, &known), Verdict::Known, "{file}");
        changed_at(&verdict(&file, host, 22, &offered), 1);
    }
}

#[test]
fn one_of_several_recorded_keys_is_enough() {
    let (old, new, third) = (key(), key(), key());
    let file = format!("host {}\nhost {}\n", text(&old), text(&new));
    assert_eq!(verdict(&file, "host", 22, &new), Verdict::Known);
    changed_at(&verdict(&file, "host", 22, &third), 1);
}

#[test]
fn line_numbers_count_comments_and_blank_lines() {
    let file = format!("# one\n\nnonsense\nhost {}\n", text(&key()));
    changed_at(&verdict(&file, "host", 22, &key()), 4);
}

#[test]
fn hashed_names_are_read() {
    // Salt, name and hash made by `ssh-keygen -H` from the name `[127.0.0.1]:2222`.
    use base64::Engine as _;
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(b"salt of 20 bytes....").unwrap();
    mac.update(b"[127.0.0.1]:2222");
    let engine = base64::engine::general_purpose::STANDARD;
    let (salt, hash) =
        (engine.encode(b"salt of 20 bytes...."), engine.encode(mac.finalize().into_bytes()));
    let known = key();
    let file = format!("|1|{salt}|{hash} {}\n", text(&known));
    assert_eq!(verdict(&file, "127.0.0.1", 2222, &known), Verdict::Known);
    changed_at(&verdict(&file, "127.0.0.1", 2222, &key()), 1);
    assert_eq!(verdict(&file, "127.0.0.1", 22, &key()), Verdict::Unknown);
}

#[test]
fn a_host_known_without_its_port_is_known_with_it() {
    let known = key();
    let file = format!("host {}\n", text(&known));
    assert_eq!(verdict(&file, "host", 2222, &known), Verdict::Known);
    assert_eq!(verdict(&file, "host", 2222, &key()), Verdict::Unknown);
}

#[test]
fn an_authority_does_not_let_a_plain_key_in() {
    let file = format!("@cert-authority *.lan {}\n", text(&key()));
    let place = Place { file: "kh".into(), line: 1 };
    assert_eq!(verdict(&file, "a.lan", 22, &key()), Verdict::Authority(place));
}

#[test]
fn a_line_of_asterisks_ends() {
    let file = format!("{}b {}\n", "*a".repeat(2000), text(&key()));
    assert_eq!(verdict(&file, &"a".repeat(4000), 22, &key()), Verdict::Unknown);
}

fn keys_in(dir: &Path, mode: HostKeyMode) -> HostKeys {
    let file = dir.join("ssh/known_hosts");
    HostKeys { files: vec![file.clone()], learn_into: Some(file), hashed: false, mode }
}

/// The file of [`keys_in`].
fn file_of(keys: &HostKeys) -> &Path {
    &keys.files[0]
}

#[test]
fn modes_decide_what_becomes_of_a_new_and_a_changed_key() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let refused = keys_in(dir.path(), HostKeyMode::Yes).check("host", 22, &key).unwrap_err();
    assert!(refused.to_string().starts_with("the key of host is not known: SHA256:"));
    let new = keys_in(dir.path(), HostKeyMode::AcceptNew);
    assert!(matches!(new.check("host", 22, &key), Ok(Accepted::Learned { .. })));
    assert_eq!(new.check("host", 22, &key), Ok(Accepted::Known));
    assert_eq!(keys_in(dir.path(), HostKeyMode::Yes).check("host", 22, &key), Ok(Accepted::Known));
    let other = self::key();
    let changed = new.check("host", 22, &other).unwrap_err();
    let RemoteError::HostKey { message, hint } = changed else { panic!("{changed:?}") };
    assert!(message.contains("CHANGED") && message.contains("known_hosts:1"), "{message}");
    assert_eq!(message.matches("SHA256:").count(), 2, "{message}");
    assert!(hint.unwrap().starts_with("if the host was rebuilt: ssh-keygen -R 'host' -f"));
    let off = keys_in(dir.path(), HostKeyMode::Off);
    assert!(matches!(off.check("host", 22, &other), Ok(Accepted::Unchecked { .. })));
}

#[test]
fn an_unreadable_file_is_an_error_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys_in(dir.path(), HostKeyMode::AcceptNew);
    std::fs::create_dir_all(file_of(&keys)).unwrap();
    assert!(keys.check("host", 22, &key()).unwrap_err().to_string().contains("cannot check"));
}

#[test]
fn first_contacts_at_once_lose_no_line_and_the_file_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let keys = keys_in(dir.path(), HostKeyMode::AcceptNew);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let keys = &keys;
            scope.spawn(move || keys.check(&format!("host{n}"), 22, &key()).unwrap());
        }
    });
    let text = std::fs::read_to_string(file_of(&keys)).unwrap();
    assert_eq!(parse(file_of(&keys), &text).len(), 20);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file_of(&keys)), 0o600);
    assert_eq!(mode(file_of(&keys).parent().unwrap()), 0o700);
}

#[test]
fn of_two_keys_that_are_learned_at_once_the_second_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys_in(dir.path(), HostKeyMode::AcceptNew);
    let offered: Vec<PublicKey> = (0..8).map(|_| key()).collect();
    // All have been looked up and found unknown when the first is recorded.
    let file = file_of(&keys);
    let results: Vec<_> = std::thread::scope(|scope| {
        let learn = |key| scope.spawn(move || super::learn::learn(file, "new.example", false, key));
        let all: Vec<_> = offered.iter().map(learn).collect();
        all.into_iter().map(|learner| learner.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(error.to_string().contains("shows two different keys"), "{error}");
    }
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_last_line_without_an_end_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys_in(dir.path(), HostKeyMode::AcceptNew);
    let known = key();
    std::fs::create_dir_all(file_of(&keys).parent().unwrap()).unwrap();
    std::fs::write(file_of(&keys), format!("first {}", text(&known))).unwrap();
    keys.check("second", 22, &key()).unwrap();
    assert_eq!(keys.check("first", 22, &known), Ok(Accepted::Known));
}
