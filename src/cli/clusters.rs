//! What the control machine keeps of each cluster: its token and the client bundle, all 0600 under
//! `$XDG_CONFIG_HOME/k3sup-rs/clusters/NAME`.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::pki::files;
use crate::pki::token::generate_password;
use crate::secret::Secret;

/// The directory of the cluster `name`.
pub fn directory(name: &str) -> Result<PathBuf, Failure> {
    let base = etcetera::choose_base_strategy()
        .map_err(|error| Failure::new(ExitCode::Error, format!("no home directory: {error}")))?;
    Ok(base.config_dir().join("k3sup-rs/clusters").join(name))
}

/// Where the token of the cluster is kept when the inventory has none.
pub fn token_file(name: &str) -> Result<PathBuf, Failure> {
    Ok(directory(name)?.join("token"))
}

/// Where a new token waits until all hosts have it.
fn next_token_file(name: &str) -> Result<PathBuf, Failure> {
    Ok(directory(name)?.join("token.next"))
}

/// The token that a rotation under way is about, else `given`, else a new one; kept before any host
/// is touched, so that it is not lost with the run.
pub(super) fn next_token(name: &str, given: Option<Secret>) -> Result<Secret, Failure> {
    let path = next_token_file(name)?;
    let kept = files::read_private(&path).map_err(|error| failed(&path, &error))?;
    let kept = kept.filter(|text| !text.trim().is_empty()).map(|text| Secret::new(text.trim()));
    match (kept, given) {
        (Some(kept), Some(given)) if kept != given => {
            let message = format!("a rotation to another token is unfinished ({})", path.display());
            Err(Failure::new(ExitCode::Refused, message)
                .hint("end it first: the same command without --new-token-file"))
        }
        (Some(kept), _) => Ok(kept),
        (None, given) => {
            let new = match given {
                Some(given) => given,
                None => generate_password()
                    .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?,
            };
            private_directory(name)?;
            files::write_private(&path, new.expose().as_bytes())
                .map_err(|error| failed(&path, &error))?;
            Ok(new)
        }
    }
}

/// Puts the new token in the place of the old one, which is kept beside it; says where.
pub(super) fn take_next_token(name: &str) -> Result<PathBuf, Failure> {
    let (path, next) = (token_file(name)?, next_token_file(name)?);
    let old = path.with_file_name(format!("token.old-{}", super::target::now_unix_s()));
    match std::fs::rename(&path, &old) {
        // An earlier attempt ended here.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        other => other.map_err(|error| failed(&path, &error))?,
    }
    std::fs::rename(&next, &path).map_err(|error| failed(&next, &error))?;
    Ok(old)
}

/// The token that the inventory names, else the one that is kept; `None` when there is neither.
pub fn known_token(inventory: &Inventory) -> Result<Option<Secret>, Failure> {
    if inventory.token.is_some() {
        return Ok(inventory.token.clone());
    }
    let next = next_token_file(&inventory.cluster_name)?;
    if next.exists() {
        let message = "a rotation of the token is unfinished: some hosts may have the new one";
        return Err(Failure::new(ExitCode::Refused, message)
            .hint("end it: `k3sup-rs token rotate` with the same inventory"));
    }
    let path = token_file(&inventory.cluster_name)?;
    let text = files::read_private(&path).map_err(|error| failed(&path, &error))?;
    Ok(text.filter(|text| !text.trim().is_empty()).map(|text| Secret::new(text.trim())))
}

/// As [`known_token`]; when there is none it is made, kept, and never overwritten afterwards: a
/// cluster's backups are worthless without it.
pub fn token(inventory: &Inventory) -> Result<Secret, Failure> {
    if let Some(token) = known_token(inventory)? {
        return Ok(token);
    }
    let path = token_file(&inventory.cluster_name)?;
    let token =
        generate_password().map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
    private_directory(&inventory.cluster_name)?;
    files::write_private(&path, token.expose().as_bytes())
        .map_err(|error| failed(&path, &error))?;
    Ok(token)
}

/// Makes the cluster's directory, 0700.
pub fn private_directory(name: &str) -> Result<PathBuf, Failure> {
    let dir = directory(name)?;
    files::private_directory(&dir).map_err(|error| failed(&dir, &error))?;
    Ok(dir)
}

/// An I/O error with the path it is about.
pub fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::Error, format!("{}: {error}", path.display()))
        .hint("make it readable and writable for you alone")
}
