//! Every refusal a client can see: gRPC code and text, exactly as etcd's.
//!
//! Clients compare the whole text (etcd `api/v3rpc/rpctypes/error.go`), so both are a contract.

use tonic::{Code, Status};

use crate::raft::api::ConsensusError;
use crate::store::auth::AuthError;
use crate::store::types::StoreError;

/// A refusal: its code and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiError(pub(crate) Code, pub(crate) &'static str);

impl ApiError {
    /// What a client prints of it.
    pub(crate) fn text(self) -> &'static str {
        self.1
    }
}

macro_rules! table {
    ($($name:ident = $code:ident, $text:literal;)*) => {
        impl ApiError {
            $(pub(crate) const $name: Self = Self(Code::$code, concat!("etcdserver: ", $text));)*
        }
    };
}

table! {
    EMPTY_KEY = InvalidArgument, "key is not provided";
    KEY_NOT_FOUND = InvalidArgument, "key not found";
    VALUE_PROVIDED = InvalidArgument, "value is provided";
    LEASE_PROVIDED = InvalidArgument, "lease is provided";
    TOO_MANY_OPS = InvalidArgument, "too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument, "duplicate key given in txn request";
    INVALID_SORT_OPTION = InvalidArgument, "invalid sort option";
    INVALID_COMPARE = InvalidArgument, "invalid comparison in txn request";
    REQUEST_TOO_LARGE = InvalidArgument, "request is too large";
    MEMBER_BAD_URLS = InvalidArgument, "given member URLs are invalid";
    COMPACTED = OutOfRange, "mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange, "mvcc: required revision is a future revision";
    LEASE_TTL_TOO_LARGE = OutOfRange, "too large lease TTL";
    NO_SPACE = ResourceExhausted, "mvcc: database space exceeded";
    TOO_MANY_REQUESTS = ResourceExhausted, "too many requests";
    LEASE_NOT_FOUND = NotFound, "requested lease not found";
    MEMBER_NOT_FOUND = NotFound, "member not found";
    LEASE_EXISTS = FailedPrecondition, "lease already exists";
    MEMBER_EXISTS = FailedPrecondition, "member ID already exist";
    PEER_URL_EXISTS = FailedPrecondition, "Peer URLs already exists";
    NOT_ENOUGH_STARTED = FailedPrecondition,
        "re-configuration failed due to not enough started members";
    NOT_LEARNER = FailedPrecondition, "can only promote a learner member";
    LEARNER_NOT_READY = FailedPrecondition,
        "can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS = FailedPrecondition, "too many learner members in cluster";
    NOT_LEADER = FailedPrecondition, "not leader";
    NOT_SUPPORTED_FOR_LEARNER = Unavailable, "rpc not supported for learner";
    BAD_TRANSFEREE = FailedPrecondition, "bad leader transferee";
    NO_LEADER = Unavailable, "no leader";
    LEADER_CHANGED = Unavailable, "leader changed";
    STOPPED = Unavailable, "server stopped";
    TIMEOUT = Unavailable, "request timed out";
    TIMEOUT_CONNECTION_LOST = Unavailable, "request timed out, possibly due to connection lost";
    UNHEALTHY = Unavailable, "unhealthy cluster";
    MISMATCH = Internal, "the store's answer does not fit the request";
    ROOT_USER_NOT_FOUND = FailedPrecondition, "root user does not exist";
    ROOT_ROLE_NOT_GRANTED = FailedPrecondition, "root user does not have root role";
    USER_EXISTS = FailedPrecondition, "user name already exists";
    USER_EMPTY = InvalidArgument, "user name is empty";
    USER_NOT_FOUND = FailedPrecondition, "user name not found";
    ROLE_EXISTS = FailedPrecondition, "role name already exists";
    ROLE_NOT_FOUND = FailedPrecondition, "role name not found";
    ROLE_EMPTY = InvalidArgument, "role name is empty";
    AUTH_FAILED = InvalidArgument, "authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN = InvalidArgument, "permission not given";
    PERMISSION_DENIED = PermissionDenied, "permission denied";
    ROLE_NOT_GRANTED = FailedPrecondition, "role is not granted to the user";
    PERMISSION_NOT_GRANTED = FailedPrecondition, "permission is not granted to the role";
    AUTH_NOT_ENABLED = FailedPrecondition, "authentication is not enabled";
    AUTH_OLD_REVISION = InvalidArgument, "revision of auth store is old";
    INVALID_AUTH_TOKEN = Unauthenticated, "invalid auth token";
    INVALID_AUTH_MANAGEMENT = InvalidArgument, "invalid auth management";
    CORRUPT = DataLoss, "corrupt cluster";
    DOWNGRADE_FORMAT = InvalidArgument, "wrong downgrade target version format";
    DOWNGRADE_TARGET = InvalidArgument, "invalid downgrade target version";
    DOWNGRADE_IN_PROCESS = FailedPrecondition, "cluster has a downgrade job in progress";
    NO_DOWNGRADE = FailedPrecondition, "no inflight downgrade job";
    UNKNOWN_METHOD = Unknown, "unknown method";
}

impl ApiError {
    /// This member has only the public key of tokens. Without a code of its own in etcd.
    pub(crate) const VERIFY_ONLY: Self =
        Self(Code::Unknown, "auth: token signing attempted with verify-only key");
    /// A key that was good at the start does not sign.
    pub(crate) const UNSIGNED: Self = Self(Code::Unknown, "auth: failed to sign a JWT token");
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Status::new(error.0, error.1)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::EmptyKey => Self::EMPTY_KEY,
            StoreError::KeyNotFound => Self::KEY_NOT_FOUND,
            StoreError::Compacted => Self::COMPACTED,
            StoreError::FutureRevision => Self::FUTURE_REVISION,
            StoreError::LeaseNotFound => Self::LEASE_NOT_FOUND,
            StoreError::LeaseExists => Self::LEASE_EXISTS,
            StoreError::LeaseTtlTooLarge => Self::LEASE_TTL_TOO_LARGE,
            StoreError::NoSpace => Self::NO_SPACE,
            StoreError::Corrupt => Self::CORRUPT,
            StoreError::DuplicateKey => Self::DUPLICATE_KEY,
            StoreError::MemberNotFound => Self::MEMBER_NOT_FOUND,
            StoreError::Auth(error) => error.into(),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::RootUserNotFound => Self::ROOT_USER_NOT_FOUND,
            AuthError::RootRoleNotGranted => Self::ROOT_ROLE_NOT_GRANTED,
            AuthError::UserExists => Self::USER_EXISTS,
            AuthError::UserEmpty => Self::USER_EMPTY,
            AuthError::UserNotFound => Self::USER_NOT_FOUND,
            AuthError::RoleExists => Self::ROLE_EXISTS,
            AuthError::RoleNotFound => Self::ROLE_NOT_FOUND,
            AuthError::RoleEmpty => Self::ROLE_EMPTY,
            AuthError::Failed => Self::AUTH_FAILED,
            // The only one that etcd gives no code of its own.
            AuthError::NoPassword => Self(
                Code::Unknown,
                "auth: authentication failed, password was given for no password user",
            ),
            AuthError::Denied => Self::PERMISSION_DENIED,
            AuthError::RoleNotGranted => Self::ROLE_NOT_GRANTED,
            AuthError::PermissionNotGranted => Self::PERMISSION_NOT_GRANTED,
            AuthError::Management => Self::INVALID_AUTH_MANAGEMENT,
            AuthError::NotEnabled => Self::AUTH_NOT_ENABLED,
            AuthError::OldRevision => Self::AUTH_OLD_REVISION,
        }
    }
}

impl From<ConsensusError> for ApiError {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::NoLeader => Self::NO_LEADER,
            ConsensusError::LeaderChanged => Self::LEADER_CHANGED,
            ConsensusError::Timeout => Self::TIMEOUT,
            ConsensusError::ConnectionLost => Self::TIMEOUT_CONNECTION_LOST,
            ConsensusError::NotLeader => Self::NOT_LEADER,
            ConsensusError::MemberNotFound => Self::MEMBER_NOT_FOUND,
            ConsensusError::MemberExists => Self::MEMBER_EXISTS,
            ConsensusError::PeerUrlExists => Self::PEER_URL_EXISTS,
            ConsensusError::NotLearner => Self::NOT_LEARNER,
            ConsensusError::LearnerNotReady => Self::LEARNER_NOT_READY,
            ConsensusError::TooManyLearners => Self::TOO_MANY_LEARNERS,
            ConsensusError::NotEnoughStarted => Self::NOT_ENOUGH_STARTED,
            ConsensusError::Unhealthy => Self::UNHEALTHY,
            ConsensusError::BadTransferee => Self::BAD_TRANSFEREE,
            ConsensusError::TooManyRequests => Self::TOO_MANY_REQUESTS,
            ConsensusError::Stopped => Self::STOPPED,
        }
    }
}
