//! `k3sup-rs play FILE`: a playbook of one's own, with the engine, modules and checks of `up`.

use std::path::{Path, PathBuf};

use super::playbook::{self, Purpose, RunArgs};
use crate::error::{ExitCode, Failure};

/// What to run, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs play -i inventory.yaml web.yml                  as ansible-playbook would
  k3sup-rs play -i inventory.yaml web.yml --check --diff   what would be changed, and why

Templates and files are looked for beside the playbook and in its templates/ and files/ directories.
Hosts need sshd and a POSIX shell: no Python. The modules and keywords: docs/playbooks.md")]
pub struct Args {
    /// The playbook
    pub playbook: PathBuf,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Runs it.
pub async fn run(mut args: Args) -> Result<(), Failure> {
    let (directory, name) = place(&args.playbook)?;
    args.run.playbook_dir.get_or_insert(directory);
    let finished = playbook::run(&args.run, &name, Purpose::Own).await?;
    playbook::ended(&finished.summary, args.run.check)
}

/// The directory of a playbook, and its name there.
fn place(path: &Path) -> Result<(PathBuf, String), Failure> {
    let bad = |why: &str| Failure::new(ExitCode::BadInput, format!("{}: {why}", path.display()));
    if !path.is_file() {
        return Err(bad("there is no such file"));
    }
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| bad("is no name"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((directory.unwrap_or(Path::new(".")).to_owned(), name.to_owned()))
}
