//! Answers about users and roles, as etcdctl's JSON and fields have them. Those that etcdctl has no
//! fields for are like the others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::answers::{encoded, header, sparse};
use super::show::{Answer, Fields};
use crate::rpc::pb::authpb::Permission;
use crate::rpc::pb::etcdserverpb::{
    AuthRoleAddResponse, AuthRoleDeleteResponse, AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse, AuthRoleListResponse, AuthRoleRevokePermissionResponse,
    AuthStatusResponse, AuthUserAddResponse, AuthUserChangePasswordResponse,
    AuthUserDeleteResponse, AuthUserGetResponse, AuthUserGrantRoleResponse, AuthUserListResponse,
    AuthUserRevokeRoleResponse,
};

/// Answers that have nothing but their header.
macro_rules! bare {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn json(&self) -> Json {
                json!({ "header": header(self.header.as_ref()) })
            }

            fn fields(&self, fields: &mut Fields) {
                fields.header(self.header.as_ref());
            }

            encoded!();
        }
    )*};
}

bare!(
    AuthRoleAddResponse,
    AuthRoleDeleteResponse,
    AuthRoleGrantPermissionResponse,
    AuthRoleRevokePermissionResponse,
    AuthUserAddResponse,
    AuthUserChangePasswordResponse,
    AuthUserDeleteResponse,
    AuthUserGrantRoleResponse,
    AuthUserRevokeRoleResponse
);

/// Answers that are a list of names.
macro_rules! names {
    ($($answer:ty, $names:ident, $title:literal;)*) => {$(
        impl Answer for $answer {
            fn json(&self) -> Json {
                let header = header(self.header.as_ref());
                sparse(json!({ "header": header, stringify!($names): self.$names }))
            }

            fn fields(&self, fields: &mut Fields) {
                fields.header(self.header.as_ref());
                fields.list($title, &self.$names);
            }

            encoded!();
        }
    )*};
}

names! {
    AuthRoleListResponse, roles, "Roles";
    AuthUserGetResponse, roles, "Roles";
    AuthUserListResponse, users, "Users";
}

impl Answer for AuthStatusResponse {
    fn json(&self) -> Json {
        sparse(json!({
            "header": header(self.header.as_ref()),
            "enabled": self.enabled,
            "authRevision": self.auth_revision,
        }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        fields.plain("Enabled", self.enabled);
        fields.plain("AuthRevision", self.auth_revision);
    }

    encoded!();
}

impl Answer for AuthRoleGetResponse {
    fn json(&self) -> Json {
        let permission = |permission: &Permission| {
            sparse(json!({
                "permType": permission.perm_type,
                "key": STANDARD.encode(&permission.key),
                "range_end": STANDARD.encode(&permission.range_end),
            }))
        };
        let permissions: Vec<_> = self.perm.iter().map(permission).collect();
        sparse(json!({ "header": header(self.header.as_ref()), "perm": permissions }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        for permission in &self.perm {
            // As etcdctl prints it, with two blanks.
            fields.plain("PermType", format_args!(" {}", permission.perm_type().as_str_name()));
            fields.quoted("Key", &permission.key);
            fields.quoted("RangeEnd", &permission.range_end);
        }
    }

    encoded!();
}
