//! Where the files of labs are.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::LabError;

/// The directory of all labs: `$K3SUP_LAB_DIR`, else `$XDG_STATE_HOME/k3sup-rs/labs`.
pub fn labs_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("K3SUP_LAB_DIR") {
        return PathBuf::from(dir);
    }
    let state = etcetera::choose_base_strategy().ok().and_then(|dirs| dirs.state_dir());
    state.unwrap_or_else(std::env::temp_dir).join("k3sup-rs/labs")
}

/// The paths of one lab host.
#[derive(Clone, Debug)]
pub(super) struct HostPaths {
    /// The lab's directory: client key, known hosts, lock.
    pub(super) lab: PathBuf,
    /// The host's own directory, its `/`.
    pub(super) root: PathBuf,
}

impl HostPaths {
    pub(super) fn new(lab: &str, host: &str) -> Self {
        let lab = labs_dir().join(lab);
        Self { root: lab.join(host), lab }
    }

    /// The paths of the host whose directory is `root`.
    pub(super) fn of_root(root: &Path) -> Self {
        Self { lab: root.parent().unwrap_or(root).to_owned(), root: root.to_owned() }
    }

    pub(super) fn client_key(&self) -> PathBuf {
        self.lab.join("client_key")
    }

    pub(super) fn known_hosts(&self) -> PathBuf {
        self.lab.join("known_hosts")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.lab.join("lock")
    }

    pub(super) fn host_key(&self) -> PathBuf {
        self.root.join("etc/ssh/host_key")
    }

    pub(super) fn definition(&self) -> PathBuf {
        self.root.join("lab.json")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.root.join("run/lab-host.pid")
    }

    pub(super) fn service_pid_file(&self, service: &str) -> PathBuf {
        self.root.join(format!("run/{service}.pid"))
    }

    pub(super) fn daemon_log(&self) -> PathBuf {
        self.root.join("var/log/lab-host.log")
    }

    pub(super) fn service_log(&self, service: &str) -> PathBuf {
        self.root.join(format!("var/log/{service}.log"))
    }

    pub(super) fn notify_socket(&self, service: &str) -> PathBuf {
        self.root.join(format!("run/{service}.notify"))
    }

    pub(super) fn unit_dir(&self) -> PathBuf {
        self.root.join("etc/systemd/system")
    }

    pub(super) fn unit(&self, service: &str) -> PathBuf {
        self.unit_dir().join(format!("{service}.service"))
    }

    /// Where systemd keeps what starts at boot.
    pub(super) fn wants(&self, service: &str) -> PathBuf {
        self.unit_dir().join(format!("multi-user.target.wants/{service}.service"))
    }

    /// Makes the directories that a host has from birth, 0700.
    pub(super) fn make(&self) -> Result<(), LabError> {
        for dir in
            ["etc/ssh", "run", "var/log", "root", "tmp", "usr/local/bin", "etc/systemd/system"]
        {
            private_dir(&self.root.join(dir))?;
        }
        Ok(())
    }
}

/// The control socket of the supervisor of the host whose directory is `root`.
pub(super) fn supervisor_socket(root: &Path) -> PathBuf {
    root.join("run/supervisor.sock")
}

/// Makes a directory and its parents, those that are made 0700.
pub(super) fn private_dir(path: &Path) -> Result<(), LabError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(LabError::io(path))
}

/// Names of the directories in a directory, sorted; none when it is not there.
pub(super) fn subdirectories(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
