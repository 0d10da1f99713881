//! Users and groups: names to numbers and back, accounts made and removed.
//!
//! `/etc/passwd` and `/etc/group` are read directly; `getent` is asked for what is not there, as
//! the executor must not depend on the host's name-service libraries.

use std::path::Path;

use crate::host::commands;
use crate::host::error::HostResult;
use crate::host::protocol::{Change, CommandSpec, HostError, HostErrorKind, UserFacts};

/// How long an account tool may take, in milliseconds.
const TOOL_TIMEOUT_MS: u64 = 60_000;

/// The user called `name`; `None` when there is none.
pub(crate) async fn user(name: &str) -> HostResult<Option<UserFacts>> {
    check_name(name)?;
    Ok(entry("passwd", name).await?.and_then(|line| parse_user(&line)))
}

/// The number of the user called `name`, or `name` itself when it is a number.
pub(crate) async fn user_id(name: &str) -> HostResult<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    user(name)
        .await?
        .map(|user| user.uid)
        .ok_or_else(|| HostError::new(HostErrorKind::NotFound, format!("there is no user {name}")))
}

/// The number of the group called `name`, or `name` itself when it is a number.
pub(crate) async fn group_id(name: &str) -> HostResult<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    check_name(name)?;
    entry("group", name)
        .await?
        .and_then(|line| line.split(':').nth(2).and_then(|number| number.parse().ok()))
        .ok_or_else(|| HostError::new(HostErrorKind::NotFound, format!("there is no group {name}")))
}

/// Name of user number `uid`; the number as text when it has none in `/etc/passwd`.
pub(crate) fn user_name(uid: u32) -> String {
    name_of("/etc/passwd", uid)
}

/// Name of group number `gid`; the number as text when it has none in `/etc/group`.
pub(crate) fn group_name(gid: u32) -> String {
    name_of("/etc/group", gid)
}

/// Makes [`Change::AddUser`]. A user that is there is left as it is.
pub(crate) async fn add(change: &Change) -> HostResult<()> {
    let Change::AddUser { name, system, group, home, shell } = change else {
        return Err(HostError::other("not the making of a user"));
    };
    check_name(name)?;
    if user(name).await?.is_some() {
        return Ok(());
    }
    let mut argv = vec!["useradd".to_owned()];
    if *system {
        argv.push("--system".to_owned());
    }
    match group {
        Some(group) => {
            add_group(group, *system).await?;
            argv.extend(["--gid".to_owned(), group.clone()]);
        }
        None => argv.push("--user-group".to_owned()),
    }
    if let Some(home) = home {
        argv.extend(["--home-dir".to_owned(), home.clone()]);
    }
    argv.push(if *system { "--no-create-home" } else { "--create-home" }.to_owned());
    if let Some(shell) = shell {
        argv.extend(["--shell".to_owned(), shell.clone()]);
    }
    argv.extend(["--".to_owned(), name.clone()]);
    run_tool(argv, &format!("add user {name}")).await
}

/// Removes the user called `name`; none there is fine. The home directory stays.
pub(crate) async fn remove(name: &str) -> HostResult<()> {
    if user(name).await?.is_none() {
        return Ok(());
    }
    let argv = ["userdel", "--", name].map(str::to_owned).to_vec();
    run_tool(argv, &format!("remove user {name}")).await
}

async fn add_group(name: &str, system: bool) -> HostResult<()> {
    check_name(name)?;
    if group_id(name).await.is_ok() {
        return Ok(());
    }
    let mut argv = vec!["groupadd".to_owned()];
    if system {
        argv.push("--system".to_owned());
    }
    argv.extend(["--".to_owned(), name.to_owned()]);
    run_tool(argv, &format!("add group {name}")).await
}

async fn run_tool(argv: Vec<String>, what: &str) -> HostResult<()> {
    let spec = CommandSpec { argv, timeout_ms: TOOL_TIMEOUT_MS, ..CommandSpec::default() };
    commands::succeed(&spec, what).await.map(drop)
}

/// The line of `name` in `/etc/<database>`, or from `getent`.
async fn entry(database: &str, name: &str) -> HostResult<Option<String>> {
    let path = format!("/etc/{database}");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(HostError::io("read", path, &error)),
    };
    if let Some(line) = text.lines().find(|line| line.split(':').next() == Some(name)) {
        return Ok(Some(line.to_owned()));
    }
    if !["/usr/bin/getent", "/bin/getent"].iter().any(|path| Path::new(path).exists()) {
        return Ok(None);
    }
    let argv = ["getent", database, name].map(str::to_owned).to_vec();
    let spec = CommandSpec { argv, timeout_ms: TOOL_TIMEOUT_MS, ..CommandSpec::default() };
    let output = commands::run(&spec).await?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned);
    Ok(line.filter(|_| output.status == 0))
}

fn parse_user(line: &str) -> Option<UserFacts> {
    let fields: Vec<&str> = line.split(':').collect();
    let [_, _, uid, gid, _, home, shell] = fields.as_slice() else { return None };
    Some(UserFacts {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: (*home).to_owned(),
        shell: (*shell).to_owned(),
    })
}

fn name_of(path: &str, number: u32) -> String {
    let wanted = number.to_string();
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| {
            text.lines()
                .find(|line| line.split(':').nth(2) == Some(&wanted))
                .and_then(|line| line.split(':').next().map(str::to_owned))
        })
        .unwrap_or(wanted)
}

/// The names that `useradd` accepts (shadow's default grammar), so that none is taken for an option
/// or a second field.
fn check_name(name: &str) -> HostResult<()> {
    let grammatical = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.$".contains(c));
    if grammatical {
        return Ok(());
    }
    Err(HostError::other(format!("{name:?} cannot be the name of a user or group")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_is_known_by_name_and_number() {
        let root = user("root").await.unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user_id("root").await.unwrap(), 0);
        assert_eq!(user_id("4711").await.unwrap(), 4711);
        assert_eq!(group_id("root").await.unwrap(), 0);
        assert_eq!(user_name(0), "root");
        assert_eq!(group_name(4_000_000_000), "4000000000");
    }

    #[tokio::test]
    async fn nobody_is_none_and_bad_names_are_refused() {
        assert_eq!(user("no-such-user-here").await.unwrap(), None);
        for name in ["", "-x", "a b", "a:b", "a/../b", "a\n", "9x"] {
            assert!(user(name).await.is_err(), "{name:?}");
        }
        assert_eq!(user_id("no-such-user").await.unwrap_err().kind, HostErrorKind::NotFound);
    }
}
