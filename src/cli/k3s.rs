//! K3s's flags that this node does not have: taken by the parser so that they are refused by name.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::node::config::schema::K3S_ONLY;

/// None of K3s's own flags was given.
#[derive(Debug, Default)]
pub(crate) struct K3sOnly;

impl Args for K3sOnly {
    fn augment_args(command: Command) -> Command {
        command.args(K3S_ONLY.iter().map(|name| {
            Arg::new(*name)
                .long(*name)
                .hide(true)
                .num_args(0..=1)
                .action(ArgAction::Append)
                .default_missing_value("")
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for K3sOnly {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = K3S_ONLY.iter().filter(|name| matches.contains_id(name));
        let refused: Vec<String> = given
            .map(|name| format!("--{name} is a K3s flag that this node does not have"))
            .collect();
        if refused.is_empty() {
            return Ok(Self);
        }
        Err(clap::Error::raw(ErrorKind::UnknownArgument, refused.join("\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(drop)
    }
}
