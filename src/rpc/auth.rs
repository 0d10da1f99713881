//! The Auth service: users, roles, and who may do what.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tonic::{Code, Request, Response, Status};

use super::caller::{Tokens, signed, token_hash};
use super::convert;
use super::errors::ApiError;
use super::member::{Member, On};
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use crate::store::auth::{Auth, AuthError};
use crate::store::types::{AuthChange, Caller, Command, KeyRange};

/// Letters of a token before the index.
const TOKEN_LETTERS: usize = 16;

/// Auth over a member.
#[derive(Clone)]
pub(crate) struct AuthService(pub(crate) Member);

type Header = Option<pb::ResponseHeader>;

impl AuthService {
    /// Proposes what a request asks for; gives the header of the answer.
    async fn change<T>(
        &self,
        rpc: Rpc,
        request: Request<T>,
        make: impl FnOnce(T) -> Result<AuthChange, ApiError>,
    ) -> Result<Header, Status> {
        let changed = async {
            self.0.admit(request.metadata(), On::Voters)?;
            let caller = self.0.caller(&request).await?;
            let change = make(request.into_inner())?;
            self.0.propose(signed(caller, Command::Auth(change))).await?;
            Ok::<_, ApiError>(Some(self.0.header_now()))
        };
        let changed = changed.await;
        self.0.metrics.handled(rpc, changed.as_ref().map_or_else(|error| error.0, |_| Code::Ok));
        Ok(changed?)
    }

    /// Reads what a request asks for, once this member has seen all changes made before it.
    async fn read<T, A>(
        &self,
        rpc: Rpc,
        request: Request<T>,
        read: impl FnOnce(&Auth, Option<&Caller>, T) -> Result<A, AuthError>,
    ) -> Result<(Header, A), Status> {
        let answer = async {
            self.0.admit(request.metadata(), On::Voters)?;
            self.0.barrier().await?;
            let caller = self.0.caller(&request).await?;
            let request = request.into_inner();
            let found = self.0.state.rights(|auth, _| read(auth, caller.as_ref(), request))?;
            Ok::<_, ApiError>((Some(self.0.header_now()), found))
        };
        let answer = answer.await;
        self.0.metrics.handled(rpc, answer.as_ref().map_or_else(|error| error.0, |_| Code::Ok));
        Ok(answer?)
    }

    /// The bcrypt hash of a password, made on a thread of its own: it takes long by design.
    async fn hashed(&self, password: String) -> Result<String, Status> {
        let cost = self.0.login.bcrypt_cost;
        let hash = tokio::task::spawn_blocking(move || bcrypt::non_truncating_hash(password, cost));
        let hash = hash.await.map_err(|_| ApiError::STOPPED)?;
        hash.map_err(|error| Status::unknown(format!("bcrypt: {error}")))
    }

    /// Checks a password and gives a token for it. The password goes no further than here.
    async fn login(&self, name: String, password: String) -> Result<String, ApiError> {
        self.0.barrier().await?;
        loop {
            let (hash, revision) = self.0.state.rights(|auth, _| auth.password_hash(&name))?;
            let given = password.clone();
            let check = move || bcrypt::non_truncating_verify(given, &hash).unwrap_or(false);
            let right = tokio::task::spawn_blocking(check).await;
            if !right.map_err(|_| ApiError::STOPPED)? {
                tracing::warn!(user = name, "a log-in with a wrong password");
                return Err(AuthError::Failed.into());
            }
            let token = match &self.0.tokens {
                Tokens::Simple => self.remembered(&name).await?,
                Tokens::Signed(jwt) => jwt.issue(&name, revision, SystemTime::now())?,
                Tokens::None => return Err(AuthError::Failed.into()),
            };
            // The password may have been changed while it was checked.
            if self.0.state.rights(|auth, _| auth.revision) == revision {
                return Ok(token);
            }
        }
    }

    /// A token that all members remember from now on.
    async fn remembered(&self, user: &str) -> Result<String, ApiError> {
        let letters: String = (0..TOKEN_LETTERS).map(|_| letter()).collect();
        let login = AuthChange::Login { user: user.to_owned(), token: token_hash(&letters) };
        let applied = self.0.consensus.propose(Command::Auth(login)).await?;
        applied.outcome?;
        Ok(format!("{letters}.{}", applied.index))
    }
}

/// The bcrypt hash that a client made itself, in base64. An empty one, or what is no hash, fits no
/// password (etcd `server/auth/store.go`, `selectPassword`).
fn hash_given(base64: &str) -> Result<String, AuthError> {
    let hash = BASE64_STANDARD.decode(base64).map_err(|_| AuthError::NoPassword)?;
    Ok(String::from_utf8(hash).unwrap_or_default())
}

/// A letter of a token.
fn letter() -> char {
    const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    LETTERS.get(rand::random_range(0..LETTERS.len())).map_or('a', |letter| char::from(*letter))
}

#[tonic::async_trait]
impl pb::auth_server::Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = self.change(Rpc::AuthEnable, request, |_| Ok(AuthChange::Enable)).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(Rpc::AuthDisable, request, |_| Ok(AuthChange::Disable)).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let read = |auth: &Auth, caller: Option<&Caller>, _| {
            auth.permit_admin(caller)?;
            Ok((auth.enabled, auth.revision))
        };
        let (header, (enabled, auth_revision)) = self.read(Rpc::AuthStatus, request, read).await?;
        Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let answer = async {
            self.0.admit(request.metadata(), On::Voters)?;
            let pb::AuthenticateRequest { name, password } = request.into_inner();
            let token = self.login(name, password).await?;
            let header = Some(self.0.header_now());
            Ok::<_, ApiError>(pb::AuthenticateResponse { header, token })
        };
        self.0.answer(Rpc::Authenticate, answer.await)
    }

    async fn user_add(
        &self,
        mut request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let given = std::mem::take(&mut request.get_mut().password);
        let no_password = request.get_ref().options.is_some_and(|options| options.no_password);
        let password = if no_password { None } else { Some(self.hashed(given).await?) };
        let make =
            |user: pb::AuthUserAddRequest| Ok(AuthChange::UserAdd { name: user.name, password });
        let header = self.change(Rpc::UserAdd, request, make).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let read = |auth: &Auth, caller: Option<&Caller>, user: pb::AuthUserGetRequest| {
            if caller.is_none_or(|caller| caller.user != user.name) {
                auth.permit_admin(caller)?;
            }
            let user = auth.users.get(&user.name).ok_or(AuthError::UserNotFound)?;
            Ok(user.roles.iter().cloned().collect())
        };
        let (header, roles) = self.read(Rpc::UserGet, request, read).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let read = |auth: &Auth, caller: Option<&Caller>, _| {
            auth.permit_admin(caller)?;
            Ok(auth.users.keys().cloned().collect())
        };
        let (header, users) = self.read(Rpc::UserList, request, read).await?;
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let make = |user: pb::AuthUserDeleteRequest| Ok(AuthChange::UserDelete { name: user.name });
        let header = self.change(Rpc::UserDelete, request, make).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        mut request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let given = std::mem::take(&mut request.get_mut().password);
        let hashed = if given.is_empty() { None } else { Some(self.hashed(given).await?) };
        let make = |user: pb::AuthUserChangePasswordRequest| {
            let password = hashed.map_or_else(|| hash_given(&user.hashed_password), Ok)?;
            Ok(AuthChange::UserPassword { name: user.name, password })
        };
        let header = self.change(Rpc::UserChangePassword, request, make).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let make = |grant: pb::AuthUserGrantRoleRequest| {
            Ok(AuthChange::UserGrant { name: grant.user, role: grant.role })
        };
        let header = self.change(Rpc::UserGrantRole, request, make).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let make = |grant: pb::AuthUserRevokeRoleRequest| {
            Ok(AuthChange::UserRevoke { name: grant.name, role: grant.role })
        };
        let header = self.change(Rpc::UserRevokeRole, request, make).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let make = |role: pb::AuthRoleAddRequest| Ok(AuthChange::RoleAdd { name: role.name });
        let header = self.change(Rpc::RoleAdd, request, make).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let read = |auth: &Auth, caller: Option<&Caller>, role: pb::AuthRoleGetRequest| {
            let user = caller.and_then(|caller| auth.users.get(&caller.user));
            if user.is_none_or(|user| !user.roles.contains(&role.role)) {
                auth.permit_admin(caller)?;
            }
            let permissions = auth.roles.get(&role.role).ok_or(AuthError::RoleNotFound)?;
            Ok(permissions.iter().map(convert::permission_message).collect())
        };
        let (header, perm) = self.read(Rpc::RoleGet, request, read).await?;
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let read = |auth: &Auth, caller: Option<&Caller>, _| {
            auth.permit_admin(caller)?;
            Ok(auth.roles.keys().cloned().collect())
        };
        let (header, roles) = self.read(Rpc::RoleList, request, read).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let make = |role: pb::AuthRoleDeleteRequest| Ok(AuthChange::RoleDelete { name: role.role });
        let header = self.change(Rpc::RoleDelete, request, make).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let make = |role: pb::AuthRoleGrantPermissionRequest| {
            let given = role.perm.ok_or(ApiError::PERMISSION_NOT_GIVEN)?;
            let permission = convert::permission(given).ok_or(AuthError::Management)?;
            Ok(AuthChange::RoleGrant { name: role.name, permission })
        };
        let header = self.change(Rpc::RoleGrantPermission, request, make).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let make = |role: pb::AuthRoleRevokePermissionRequest| {
            let range = KeyRange { key: role.key, end: role.range_end };
            Ok(AuthChange::RoleRevoke { name: role.role, range })
        };
        let header = self.change(Rpc::RoleRevokePermission, request, make).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
