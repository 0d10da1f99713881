//! Users, roles, ranges.

use bytes::Bytes;

use super::*;
use crate::store::lease::Leases;
use crate::store::types::{Caller, Command, DeleteRange, Put, RangeQuery, Txn, TxnOp};

fn range(key: &str, end: &str) -> KeyRange {
    KeyRange {
        key: Bytes::copy_from_slice(key.as_bytes()),
        end: Bytes::copy_from_slice(end.as_bytes()),
    }
}

fn grant(name: &str, access: Access, key: &str, end: &str) -> AuthChange {
    let permission = Permission { access, range: range(key, end) };
    AuthChange::RoleGrant { name: name.to_owned(), permission }
}

fn user(name: &str) -> AuthChange {
    AuthChange::UserAdd { name: name.to_owned(), password: Some("hash".to_owned()) }
}

fn role(name: &str, role: &str) -> AuthChange {
    AuthChange::UserGrant { name: name.to_owned(), role: role.to_owned() }
}

/// Root, and `u` with a role `r` that has the given permissions; enabled.
fn enabled(permissions: &[(Access, &str, &str)]) -> Auth {
    let mut auth = Auth::default();
    let name = "r".to_owned();
    for change in [user("root"), role("root", "root"), user("u"), AuthChange::RoleAdd { name }] {
        assert_eq!(auth.apply(change), Ok(true));
    }
    auth.apply(role("u", "r")).unwrap();
    for (access, key, end) in permissions {
        auth.apply(grant("r", *access, key, end)).unwrap();
    }
    assert_eq!(auth.apply(AuthChange::Enable), Ok(true));
    auth
}

fn caller(auth: &Auth, user: &str) -> Caller {
    Caller { user: user.to_owned(), revision: auth.revision }
}

#[test]
fn nothing_is_enabled_without_root() {
    let mut auth = Auth::default();
    assert_eq!(auth.revision, 1);
    assert_eq!(auth.apply(AuthChange::Enable), Err(AuthError::RootUserNotFound));
    auth.apply(user("root")).unwrap();
    assert_eq!(auth.apply(AuthChange::Enable), Err(AuthError::RootRoleNotGranted));
    auth.apply(role("root", "root")).unwrap();
    let before = auth.revision;
    assert_eq!(auth.apply(AuthChange::Enable), Ok(true));
    assert_eq!(auth.revision, before);
    let name = || "root".to_owned();
    for change in [
        AuthChange::UserDelete { name: name() },
        AuthChange::UserRevoke { name: name(), role: name() },
        AuthChange::RoleDelete { name: name() },
    ] {
        assert_eq!(auth.apply(change), Err(AuthError::Management));
    }
    assert_eq!(auth.apply(AuthChange::Disable), Ok(true));
    assert_eq!(auth.revision, before + 1);
    assert_eq!(auth.apply(AuthChange::UserDelete { name: name() }), Ok(true));
}

#[test]
fn ranges_are_covered_by_all_permissions_together() {
    use Access::{Read, ReadWrite, Write};
    let auth =
        enabled(&[(Read, "a", "c"), (ReadWrite, "c", "e"), (Write, "k", ""), (Read, "x", "\0")]);
    let u = caller(&auth, "u");
    let may = |access, key, end| auth.permit_range(Some(&u), &range(key, end), access).is_ok();
    for (key, end) in [("a", ""), ("a", "e"), ("b", "d"), ("dzz", ""), ("x", "\0"), ("zz", "\0")] {
        assert!(may(Read, key, end), "{key} {end}");
    }
    for (key, end) in [("a", "f"), ("e", ""), ("k", ""), ("a", "\0"), ("w", "\0"), ("", "\0")] {
        assert!(!may(Read, key, end), "{key} {end}");
    }
    assert!(may(Write, "k", "") && may(Write, "c", "e"));
    assert!(!may(Write, "k1", "") && !may(Write, "a", "") && !may(Write, "b", "d"));
    assert!(auth.permit_range(Some(&caller(&auth, "root")), &range("", "\0"), Write).is_ok());
    for bad in [range("", ""), range("b", "a"), range("a", "a")] {
        assert!(!ranges::is_valid(&bad));
    }
}

#[test]
fn commands_are_permitted_to_their_callers() {
    let mut auth = enabled(&[(Access::Write, "w", ""), (Access::Read, "r", "")]);
    let leases = Leases::default();
    let permit = |auth: &Auth, caller: Option<&Caller>, command: &Command| {
        auth.permit(caller, command, &leases)
    };
    let put = |prev_kv| Command::Put(Put { key: "w".into(), prev_kv, ..Put::default() });
    let u = caller(&auth, "u");
    assert_eq!(permit(&auth, Some(&u), &put(false)), Ok(()));
    assert_eq!(permit(&auth, Some(&u), &put(true)), Err(AuthError::Denied));
    assert_eq!(permit(&auth, None, &put(false)), Err(AuthError::UserEmpty));
    let stranger = caller(&auth, "stranger");
    assert_eq!(permit(&auth, Some(&stranger), &put(false)), Err(AuthError::Denied));
    let delete = Command::DeleteRange(DeleteRange { range: range("r", ""), prev_kv: false });
    assert_eq!(permit(&auth, Some(&u), &delete), Err(AuthError::Denied));
    let query = RangeQuery { range: range("other", ""), ..RangeQuery::default() };
    let txn = Txn { failure: vec![TxnOp::Range(query)], ..Txn::default() };
    assert_eq!(permit(&auth, Some(&u), &Command::Txn(txn)), Err(AuthError::Denied));
    let grant_lease = Command::LeaseGrant { id: 1, ttl: 9 };
    assert_eq!(permit(&auth, None, &grant_lease), Err(AuthError::UserEmpty));
    assert_eq!(permit(&auth, Some(&u), &grant_lease), Ok(()));
    assert_eq!(permit(&auth, None, &Command::LeaseRevoke { id: 1 }), Ok(()));
    let change = Command::Auth(user("new"));
    assert_eq!(permit(&auth, Some(&u), &change), Err(AuthError::Denied));
    assert_eq!(permit(&auth, Some(&caller(&auth, "root")), &change), Ok(()));
    auth.apply(user("new")).unwrap();
    assert_eq!(permit(&auth, Some(&u), &put(false)), Err(AuthError::OldRevision));
    auth.apply(AuthChange::Disable).unwrap();
    assert_eq!(permit(&auth, None, &put(true)), Ok(()));
}

#[test]
fn tokens_end_with_their_user_and_are_not_stored() {
    let mut auth = enabled(&[]);
    let login = |user: &str| AuthChange::Login { user: user.to_owned(), token: [7; 32] };
    let before = auth.revision;
    assert_eq!(auth.apply(login("nobody")), Err(AuthError::Failed));
    assert_eq!(auth.apply(login("u")), Ok(false));
    assert_eq!((auth.token_user(&[7; 32]), auth.revision), (Some("u"), before));
    let stored = Auth::decode(&auth.encode().unwrap()).unwrap();
    assert_eq!(stored.token_user(&[7; 32]), None);
    assert_eq!((&stored.users, &stored.roles), (&auth.users, &auth.roles));
    let change = AuthChange::UserPassword { name: "u".to_owned(), password: "other".to_owned() };
    auth.apply(change).unwrap();
    assert_eq!(auth.token_user(&[7; 32]), None);
    assert_eq!(auth.password_hash("u"), Ok(("other".to_owned(), auth.revision)));
    assert_eq!(Auth::decode(&[]), None);
    assert_eq!(Auth::decode(&[2, 0]), None);
}
