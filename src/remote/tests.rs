//! `connection: local` and the start of an executor, with stand-ins for executor and sudo that are
//! shell scripts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::*;

fn script(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

async fn local(executor: &Path, escalation: Option<Become>) -> Result<(), RemoteError> {
    let target = Target { name: "here".to_owned(), connection: Connection::Local, escalation };
    let options = ConnectOptions { executor: Executor::at(executor), ..ConnectOptions::new() };
    connect(&target, &options, &|_| {}).await.map(drop)
}

#[tokio::test]
async fn a_program_that_is_no_executor_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let silent = script(&dir.path().join("silent"), "exit 3");
    let error = local(&silent, None).await.unwrap_err();
    assert!(
        matches!(&error, RemoteError::Executor { message, .. } if message.contains("ended at once"))
    );
    let noisy = script(&dir.path().join("noisy"), "echo hello; printf '\\033[31mred' >&2; exit 1");
    let error = local(&noisy, None).await.unwrap_err();
    assert!(error.to_string().ends_with(": [31mred"), "{error}");
    let error = local(&dir.path().join("none"), None).await.unwrap_err();
    assert!(matches!(error, RemoteError::Executor { .. }));
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // The marker is the third argument; then a Welcome (variant 0) of protocol 99, version "x".
    let text = r#"printf '%s\n' "$3"; printf '\000\000\000\004\000\143\001x'; cat >/dev/null"#;
    let other = script(&dir.path().join("other"), text);
    let error = local(&other, None).await.unwrap_err();
    assert!(error.to_string().contains("speaks protocol 99"), "{error}");
}

fn asking() -> Way {
    let password = Some("pass word".into());
    Way::of(Some(&Become { password, ..Become::new("root") })).unwrap()
}

/// What sudo's stand-in is started with: its own arguments up to `--`, then a program.
fn sudo(dir: &Path, before: &str) -> Pipe {
    let way = asking();
    let start = Start { nonce: "abc".to_owned(), sha256: None };
    let text = format!(
        "while [ \"$1\" != -- ]; do [ \"$1\" = -p ] && p=$2; shift; done; shift\n{before}\nexec \"$@\""
    );
    let sudo = script(&dir.join("sudo"), &text);
    let executor = script(&dir.join("executor"), "printf '%s\\n' \"$3\"; cat >&2");
    let mut argv = way.argv(executor.to_str().unwrap(), &start);
    argv[0] = sudo.to_str().unwrap().to_owned();
    local::run(&argv).unwrap()
}

async fn asked(before: &str) -> Result<Option<String>, RemoteError> {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = sudo(dir.path(), before);
    let way = asking();
    let start = Start { nonce: "abc".to_owned(), sha256: None };
    match escalation::first_line(&mut pipe, &way, &start).await {
        Ok(None) => Err(escalation::explain(&mut pipe, &way, &start).await),
        other => other,
    }
}

#[tokio::test]
async fn a_password_is_given_when_it_is_asked_for() {
    let right = "printf %s \"$p\" >&2; read -r word; [ \"$word\" = 'pass word' ] || exit 1";
    assert_eq!(asked(right).await.unwrap().unwrap(), "k3sup-rs abc ready");
    assert_eq!(asked(":").await.unwrap().unwrap(), "k3sup-rs abc ready");
}

#[tokio::test]
async fn a_wrong_password_is_given_once_only() {
    let wrong = "printf %s \"$p\" >&2; read -r one; echo 'Sorry, try again.' >&2; \
                 printf %s \"$p\" >&2; read -r two; echo \"$two\" >&2; exit 1";
    let error = asked(wrong).await.unwrap_err();
    assert!(
        matches!(&error, RemoteError::Become { message, .. } if message.contains("does not accept"))
    );
}

#[tokio::test]
async fn what_sudo_refuses_is_told_with_its_words() {
    let refused = "echo 'sudo: a password is required' >&2; exit 1";
    let RemoteError::Become { message, hint } = asked(refused).await.unwrap_err() else {
        panic!("not a refusal of sudo")
    };
    assert!(message.contains("a password is required"), "{message}");
    assert!(hint.unwrap().contains("configuration"));
}

#[test]
fn names_of_users_are_never_options() {
    for user in ["", "-u", "a b", "root;id", "$(id)"] {
        let other = Become::new(user);
        assert!(Way::of(Some(&other)).is_err(), "{user:?}");
    }
}
