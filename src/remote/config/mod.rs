//! `ssh_config(5)`: how people tell SSH about their hosts.
//!
//! [`read`] reads files, [`resolve`] says what they mean for one host, [`destination`] makes of it
//! where to go, through which hosts, and whom to trust. The rules are OpenSSH's, and a test compares
//! with `ssh -G`. Parsed here because the crates for it ignore what they do not know: a `Match` block
//! read as part of the `Host` before it, or `accept-new` read as `yes`, sends connections elsewhere.
//!
//! Knows nothing of connections.

mod destination;
mod option;
mod read;
mod resolve;
#[cfg(test)]
mod tests;
mod tokens;
mod words;

use std::path::Path;

pub(crate) use option::Options;
use read::{Line, Origin};
pub(crate) use tokens::{Me, at_home};

/// For all users of this machine.
const SYSTEM_FILE: &str = "/etc/ssh/ssh_config";

/// What the configuration files say.
#[derive(Clone, Debug)]
pub(crate) struct SshConfig {
    me: Me,
    /// In order: what is said first counts.
    files: Vec<Vec<Line>>,
}

impl SshConfig {
    /// Reads `~/.ssh/config` and the system's file, or only `file` (`ssh -F`; `none` is none).
    ///
    /// # Errors
    /// A file cannot be read, is writable by others, or a line is not understood: the file, the
    /// line and why.
    pub(crate) fn read(me: Me, file: Option<&str>) -> Result<Self, String> {
        let directory = me.home.join(".ssh");
        let own = |private| Origin { directory: &directory, home: &me.home, private };
        let files = match file {
            Some("none") => Vec::new(),
            Some(file) => vec![read::file(&at_home(file, &me.home), own(false), false)?],
            None => {
                let system =
                    Origin { directory: Path::new("/etc/ssh"), home: &me.home, private: false };
                vec![
                    read::file(&directory.join("config"), own(true), true)?,
                    read::file(Path::new(SYSTEM_FILE), system, true)?,
                ]
            }
        };
        Ok(Self { me, files })
    }
}
