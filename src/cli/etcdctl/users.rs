//! Users: `user add|delete|get|list|passwd|grant-role|revoke-role`.

use clap::{ArgAction, Subcommand};

use super::connection::Connection;
use super::passwords;
use super::roles;
use super::show::Show;
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::authpb::UserAddOptions;
use crate::rpc::pb::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};
use crate::secret::Secret;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a user
    Add(Add),
    /// Delete a user
    Delete {
        /// Its name
        name: String,
    },
    /// Print the roles of a user
    Get {
        /// Its name
        name: String,
        /// Print what its roles allow, too
        #[arg(long)]
        detail: bool,
    },
    /// Print the users
    List,
    /// Change the password of a user
    Passwd {
        /// Its name
        name: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Give a role to a user
    GrantRole {
        /// The user
        name: String,
        /// The role
        role: String,
    },
    /// Take a role from a user
    RevokeRole {
        /// The user
        name: String,
        /// The role
        role: String,
    },
}

/// Where a new password comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Ask for the password on the terminal; with =false it is a line of standard input
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    interactive: bool,
}

impl Asked {
    /// The password.
    fn password(&self, user: &str) -> Result<Secret, Failure> {
        if self.interactive { passwords::new(user) } else { passwords::piped() }
    }
}

/// `user add`.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Its name, or name and password, which others on this host can see then
    #[arg(value_name = "NAME[:PASSWORD]")]
    name: Secret,

    #[command(flatten)]
    asked: Asked,

    /// The password, which others on this host can see then
    #[arg(long, value_name = "PASSWORD")]
    new_user_password: Option<Secret>,

    /// It has no password: a certificate must name it
    #[arg(long)]
    no_password: bool,
}

impl Add {
    /// Asks for what was not given.
    fn request(self) -> Result<AuthUserAddRequest, Failure> {
        let given = self.name.expose();
        let whole = |password: Secret| (given.to_owned(), password);
        let (name, password) = if self.no_password {
            whole(Secret::default())
        } else if let Some(password) = self.new_user_password.filter(|given| !given.is_empty()) {
            whole(password)
        } else if let Some((name, password)) = given.split_once(':') {
            if name.is_empty() {
                let why = "empty user name is not allowed";
                return Err(Failure::new(ExitCode::BadInput, why));
            }
            (name.to_owned(), password.into())
        } else {
            whole(self.asked.password(given)?)
        };
        Ok(AuthUserAddRequest {
            name,
            password: password.expose().to_owned(),
            options: Some(UserAddOptions { no_password: self.no_password }),
            ..AuthUserAddRequest::default()
        })
    }
}

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let auth = &mut client.auth;
    match command {
        Command::Add(add) => {
            let request = add.request()?;
            let words = format!("User {} created", request.name);
            show.words(&connection.answer(auth.user_add(request)).await?, &words)
        }
        Command::Delete { name } => {
            let words = format!("User {name} deleted");
            let request = AuthUserDeleteRequest { name };
            show.words(&connection.answer(auth.user_delete(request)).await?, &words)
        }
        Command::Get { name, detail } => get(connection, show, name, detail).await,
        Command::List => {
            let answer = connection.answer(auth.user_list(AuthUserListRequest {})).await?;
            show.names(&answer, &answer.users)
        }
        Command::Passwd { name, asked } => {
            let password = asked.password(&name)?.expose().to_owned();
            let hashed_password = String::new();
            let request = AuthUserChangePasswordRequest { name, password, hashed_password };
            let answer = connection.answer(auth.user_change_password(request)).await?;
            show.words(&answer, "Password updated")
        }
        Command::GrantRole { name, role } => {
            let words = format!("Role {role} is granted to user {name}");
            let request = AuthUserGrantRoleRequest { user: name, role };
            show.words(&connection.answer(auth.user_grant_role(request)).await?, &words)
        }
        Command::RevokeRole { name, role } => {
            let words = format!("Role {role} is revoked from user {name}");
            let request = AuthUserRevokeRoleRequest { name, role };
            show.words(&connection.answer(auth.user_revoke_role(request)).await?, &words)
        }
    }
}

async fn get(
    connection: &Connection,
    show: Show,
    name: String,
    detail: bool,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let head = format!("User: {name}");
    let answer = connection.answer(client.auth.user_get(AuthUserGetRequest { name })).await?;
    if !detail {
        let roles: String = answer.roles.iter().flat_map(|role| [" ", role]).collect();
        return show.words(&answer, &format!("{head}\nRoles:{roles}"));
    }
    output::line(&head)?;
    for role in answer.roles {
        output::line("")?;
        roles::get(connection, &mut client, show, role).await?;
    }
    Ok(())
}
