//! Users, roles and what they may do: replicated as keys are, checked when a command is applied.
//!
//! Pure, and without a clock: passwords come hashed, and how long a token lasts is for whoever
//! holds the clock. The rules are those of etcd's `server/auth/store.go`.

mod change;
mod permit;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::change::{AuthChange, Caller};
use super::types::{KeyRange, StoreError};

/// The user and the role that may do everything.
const ROOT: &str = "root";

/// Why users, roles or their rights do not allow it. Each maps to one of etcd's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AuthError {
    /// Nobody can be root yet.
    #[error("root user does not exist")]
    RootUserNotFound,
    /// The user `root` is not root.
    #[error("root user does not have root role")]
    RootRoleNotGranted,
    /// The name is taken.
    #[error("user name already exists")]
    UserExists,
    /// No user is named.
    #[error("user name is empty")]
    UserEmpty,
    /// No such user.
    #[error("user name not found")]
    UserNotFound,
    /// The name is taken.
    #[error("role name already exists")]
    RoleExists,
    /// No such role.
    #[error("role name not found")]
    RoleNotFound,
    /// No role is named.
    #[error("role name is empty")]
    RoleEmpty,
    /// No such user, or another password.
    #[error("authentication failed, invalid user ID or password")]
    Failed,
    /// The user has no password to log in with.
    #[error("authentication failed, password was given for no password user")]
    NoPassword,
    /// The user may not.
    #[error("permission denied")]
    Denied,
    /// The user does not have the role.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have the permission.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// It would leave the cluster without root, or the range is none.
    #[error("invalid auth management")]
    Management,
    /// Nobody has to log in.
    #[error("authentication is not enabled")]
    NotEnabled,
    /// Users or roles were changed since the client logged in.
    #[error("revision of auth store is old")]
    OldRevision,
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Reading and watching.
    Read,
    /// Writing and deleting.
    Write,
    /// Both.
    ReadWrite,
}

/// What a role allows, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What.
    pub access: Access,
    /// Where.
    pub range: KeyRange,
}

/// A user.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The password's bcrypt hash; `None` for a user who can only come with a certificate.
    pub password: Option<String>,
    /// Granted roles.
    pub roles: BTreeSet<String>,
}

impl std::fmt::Debug for User {
    /// Without the hash: it is not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl User {
    fn is_root(&self) -> bool {
        self.roles.contains(ROOT)
    }
}

/// The SHA-256 of a token that a user got for a password.
pub type TokenHash = [u8; 32];

/// All that is replicated about users. Only what serde sees stands in checkpoints and snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// Whether anybody has to be somebody.
    pub(crate) enabled: bool,
    /// Grows by one with each change.
    pub(crate) revision: u64,
    /// By name.
    pub(crate) users: BTreeMap<String, User>,
    /// By name, the permissions in order of their keys.
    pub(crate) roles: BTreeMap<String, Vec<Permission>>,
    /// Who has which token. They end soon, and with the process.
    #[serde(skip)]
    tokens: BTreeMap<TokenHash, String>,
}

impl Default for Auth {
    /// Nobody, and not enabled.
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }
}

/// First byte of an encoded [`Auth`]. Another number is another format.
const VERSION: u8 = 1;

impl Auth {
    /// As it stands in a checkpoint or snapshot.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        let out = postcard::to_extend(self, vec![VERSION]).ok()?;
        Some(Bytes::from(out))
    }

    /// What [`Self::encode`] gave.
    pub(crate) fn decode(input: &[u8]) -> Option<Self> {
        let (version, rest) = input.split_first()?;
        if *version != VERSION {
            return None;
        }
        match postcard::take_from_bytes(rest) {
            Ok((auth, [])) => Some(auth),
            _ => None,
        }
    }

    /// Makes a change; gives whether there was anything to change.
    pub(crate) fn apply(&mut self, change: AuthChange) -> Result<bool, AuthError> {
        let changed = match change {
            AuthChange::Enable => return self.enable(),
            AuthChange::Login { user, token } => {
                self.login(user, token)?;
                return Ok(false);
            }
            AuthChange::Disable if !self.enabled => false,
            AuthChange::Disable => {
                self.enabled = false;
                self.tokens.clear();
                true
            }
            AuthChange::UserAdd { name, password } => self.user_add(name, password)?,
            AuthChange::UserDelete { name } => self.user_delete(&name)?,
            AuthChange::UserPassword { name, password } => self.user_password(&name, password)?,
            AuthChange::UserGrant { name, role } => self.user_grant(&name, role)?,
            AuthChange::UserRevoke { name, role } => self.user_revoke(&name, &role)?,
            AuthChange::RoleAdd { name } => self.role_add(name)?,
            AuthChange::RoleDelete { name } => self.role_delete(&name)?,
            AuthChange::RoleGrant { name, permission } => self.role_grant(&name, permission)?,
            AuthChange::RoleRevoke { name, range } => self.role_revoke(&name, &range)?,
        };
        self.revision += u64::from(changed);
        Ok(changed)
    }

    fn enable(&mut self) -> Result<bool, AuthError> {
        if self.enabled {
            return Ok(false);
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserNotFound)?;
        if !root.is_root() {
            return Err(AuthError::RootRoleNotGranted);
        }
        self.enabled = true;
        Ok(true)
    }

    /// The password was checked by whoever proposed it.
    fn login(&mut self, user: String, token: TokenHash) -> Result<(), AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        let found = self.users.get(&user).ok_or(AuthError::Failed)?;
        if found.password.is_none() {
            return Err(AuthError::NoPassword);
        }
        self.tokens.insert(token, user);
        Ok(())
    }

    fn user_add(&mut self, name: String, password: Option<String>) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(&name) {
            return Err(AuthError::UserExists);
        }
        self.users.insert(name, User { password, roles: BTreeSet::new() });
        Ok(true)
    }

    fn user_delete(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::Management);
        }
        self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        self.forget_tokens_of(name);
        Ok(true)
    }

    fn user_password(&mut self, name: &str, password: String) -> Result<bool, AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if user.password.is_some() {
            user.password = Some(password);
        }
        self.forget_tokens_of(name);
        Ok(true)
    }

    fn user_grant(&mut self, name: &str, role: String) -> Result<bool, AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(&role) {
            return Err(AuthError::RoleNotFound);
        }
        Ok(user.roles.insert(role))
    }

    fn user_revoke(&mut self, name: &str, role: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::Management);
        }
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if user.roles.remove(role) { Ok(true) } else { Err(AuthError::RoleNotGranted) }
    }

    fn role_add(&mut self, name: String) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(&name) {
            return Err(AuthError::RoleExists);
        }
        self.roles.insert(name, Vec::new());
        Ok(true)
    }

    fn role_delete(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::Management);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        Ok(true)
    }

    fn role_grant(&mut self, name: &str, permission: Permission) -> Result<bool, AuthError> {
        if !ranges::is_valid(&permission.range) {
            return Err(AuthError::Management);
        }
        let permissions = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let same = permissions.iter_mut().find(|granted| granted.range == permission.range);
        if let Some(granted) = same {
            granted.access = permission.access;
        } else {
            let key = &permission.range.key;
            let at = permissions.partition_point(|granted| granted.range.key <= *key);
            permissions.insert(at, permission);
        }
        Ok(true)
    }

    fn role_revoke(&mut self, name: &str, range: &KeyRange) -> Result<bool, AuthError> {
        let permissions = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let before = permissions.len();
        permissions.retain(|granted| granted.range != *range);
        if permissions.len() < before { Ok(true) } else { Err(AuthError::PermissionNotGranted) }
    }

    fn forget_tokens_of(&mut self, name: &str) {
        self.tokens.retain(|_, user| user != name);
    }

    /// Whose token it is.
    pub(crate) fn token_user(&self, token: &TokenHash) -> Option<&str> {
        self.tokens.get(token).map(String::as_str)
    }

    /// All tokens.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &TokenHash> {
        self.tokens.keys()
    }

    /// Ends a token on this member.
    pub(crate) fn forget_token(&mut self, token: &TokenHash) {
        self.tokens.remove(token);
    }

    /// The bcrypt hash to check a user's password against, and the revision it is of.
    pub(crate) fn password_hash(&self, user: &str) -> Result<(String, u64), AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        let user = self.users.get(user).ok_or(AuthError::Failed)?;
        let hash = user.password.clone().ok_or(AuthError::NoPassword)?;
        Ok((hash, self.revision))
    }
}

impl From<AuthError> for StoreError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}
