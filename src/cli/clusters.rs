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

/// The token that the inventory names, else the one that is kept; `None` when there is neither.
pub fn known_token(inventory: &Inventory) -> Result<Option<Secret>, Failure> {
    if inventory.token.is_some() {
        return Ok(inventory.token.clone());
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
