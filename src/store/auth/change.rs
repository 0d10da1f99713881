//! The words in which users, roles and rights are changed, and callers are named.

use serde::{Deserialize, Serialize};

use super::{Permission, TokenHash};
use crate::store::types::KeyRange;

/// Who asks for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user's name.
    pub user: String,
    /// The revision of users and roles when the user showed who it is.
    pub revision: u64,
}

/// A change of users, roles and rights. Passwords come as bcrypt hashes, tokens as SHA-256.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthChange {
    /// From now on everybody has to be somebody.
    Enable,
    /// From now on nobody has to be anybody.
    Disable,
    /// A user whose password was checked gets a token.
    Login {
        /// The user's name.
        user: String,
        /// What stands for the token.
        token: TokenHash,
    },
    /// A new user.
    UserAdd {
        /// Its name.
        name: String,
        /// The hash of its password, if it has one.
        password: Option<String>,
    },
    /// A user ends.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// A user's password changes.
    UserPassword {
        /// Its name.
        name: String,
        /// The hash of its new password.
        password: String,
    },
    /// A user gets a role.
    UserGrant {
        /// The user's name.
        name: String,
        /// The role's name.
        role: String,
    },
    /// A user loses a role.
    UserRevoke {
        /// The user's name.
        name: String,
        /// The role's name.
        role: String,
    },
    /// A new role.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// A role ends.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// A role gets a permission, or another one for the same range.
    RoleGrant {
        /// Its name.
        name: String,
        /// The permission.
        permission: Permission,
    },
    /// A role loses the permission of a range.
    RoleRevoke {
        /// Its name.
        name: String,
        /// The range.
        range: KeyRange,
    },
}

impl std::fmt::Debug for AuthChange {
    /// Without hashes: they are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Enable => return f.write_str("Enable"),
            Self::Disable => return f.write_str("Disable"),
            Self::RoleGrant { name, permission } => {
                return write!(f, "RoleGrant({name:?}, {permission:?})");
            }
            Self::RoleRevoke { name, range } => {
                return write!(f, "RoleRevoke({name:?}, {range:?})");
            }
            Self::UserGrant { name, role } => return write!(f, "UserGrant({name:?}, {role:?})"),
            Self::UserRevoke { name, role } => return write!(f, "UserRevoke({name:?}, {role:?})"),
            Self::Login { user, .. } => return write!(f, "Login({user:?})"),
            Self::UserAdd { name, .. } => ("UserAdd", name),
            Self::UserDelete { name } => ("UserDelete", name),
            Self::UserPassword { name, .. } => ("UserPassword", name),
            Self::RoleAdd { name } => ("RoleAdd", name),
            Self::RoleDelete { name } => ("RoleDelete", name),
        };
        write!(f, "{}({:?})", name.0, name.1)
    }
}
