//! Whether users must log in: `auth enable|disable|status`.

use clap::Subcommand;

use super::connection::Connection;
use super::show::Show;
use crate::cli::output;
use crate::error::Failure;
use crate::rpc::client::Client;
use crate::rpc::errors::ApiError;
use crate::rpc::pb::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

/// The user that may do everything, and the role that lets it.
const ROOT: &str = "root";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let users only in; a user `root` must be there, and gets the role `root`
    Enable,
    /// Let everybody in
    Disable,
    /// Print whether users must log in
    Status,
}

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    match command {
        Command::Enable => {
            enable(connection, &mut client).await?;
            output::line("Authentication Enabled")
        }
        Command::Disable => {
            connection.answer(client.auth.auth_disable(AuthDisableRequest {})).await?;
            output::line("Authentication Disabled")
        }
        Command::Status => {
            let answer = connection.answer(client.auth.auth_status(AuthStatusRequest {})).await?;
            let (enabled, revision) = (answer.enabled, answer.auth_revision);
            let words = format!("Authentication Status: {enabled}\nAuthRevision: {revision}");
            show.words(&answer, &words)
        }
    }
}

/// Enables it; gives the user `root` its role first where it has none.
async fn enable(connection: &Connection, client: &mut Client) -> Result<(), Failure> {
    let auth = &mut client.auth;
    match connection.answer(auth.auth_enable(AuthEnableRequest {})).await {
        Err(failure) if failure.message == ApiError::ROOT_ROLE_NOT_GRANTED.text() => {}
        done => return done.map(drop),
    }
    let role = AuthRoleAddRequest { name: ROOT.to_owned() };
    connection.answer(auth.role_add(role)).await?;
    let grant = AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
    connection.answer(auth.user_grant_role(grant)).await?;
    connection.answer(auth.auth_enable(AuthEnableRequest {})).await.map(drop)
}
