//! Services: systemd, OpenRC, or a lab host's own supervisor.

mod lab;
mod openrc;
mod systemd;

use std::path::{Path, PathBuf};

use crate::host::commands;
use crate::host::error::HostResult;
use crate::host::protocol::{
    CommandSpec, HostError, HostErrorKind, Output, ServiceAction, ServiceFacts,
};

/// How long a question to a service manager may take, in milliseconds.
const ASK_TIMEOUT_MS: u64 = 30_000;

/// What runs services on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
    /// The supervisor of the lab host with this directory.
    Lab(PathBuf),
    /// None that is known.
    None,
}

impl Manager {
    /// The one that is in charge now, not one that is only installed.
    pub(crate) fn detect(lab_root: Option<&Path>) -> Self {
        match lab_root {
            Some(root) => Self::Lab(root.to_owned()),
            // sd_booted(3).
            None if Path::new("/run/systemd/system").is_dir() => Self::Systemd,
            None if Path::new("/run/openrc").is_dir() => Self::OpenRc,
            None => Self::None,
        }
    }

    /// As facts name it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::OpenRc => "openrc",
            Self::Lab(_) => "lab",
            Self::None => "none",
        }
    }

    /// State of a service; one that is not known has no state but is no error.
    pub(crate) async fn facts(&self, name: &str) -> HostResult<ServiceFacts> {
        check_name(name)?;
        match self {
            Self::Systemd => systemd::facts(name).await,
            Self::OpenRc => openrc::facts(name).await,
            Self::Lab(root) => lab::facts(root, name).await,
            Self::None => Ok(ServiceFacts::default()),
        }
    }

    /// Does `action` and waits for it, a start until the service says that it is ready.
    pub(crate) async fn act(
        &self,
        name: &str,
        action: ServiceAction,
        timeout_ms: u64,
    ) -> HostResult<()> {
        check_name(name)?;
        match self {
            Self::Systemd => systemd::act(name, action, timeout_ms).await,
            Self::OpenRc => openrc::act(name, action, timeout_ms).await,
            Self::Lab(root) => lab::act(root, name, action, timeout_ms).await,
            Self::None => Err(HostError::new(
                HostErrorKind::Service,
                format!("cannot {} service {name}: no service manager runs", action.verb()),
            )
            .hint("systemd or OpenRC must be in charge on the host")),
        }
    }

    /// Reads units again.
    pub(crate) async fn reload(&self) -> HostResult<()> {
        match self {
            Self::Systemd => systemd::reload().await,
            // They read a service's definition at each start.
            Self::OpenRc | Self::Lab(_) | Self::None => Ok(()),
        }
    }

    /// Last lines of a service's log.
    pub(crate) async fn log(&self, name: &str, lines: u32) -> HostResult<String> {
        check_name(name)?;
        match self {
            Self::Systemd => systemd::log(name, lines).await,
            Self::OpenRc => tail(&PathBuf::from(format!("/var/log/{name}.log")), lines).await,
            Self::Lab(root) => tail(&root.join(format!("var/log/{name}.log")), lines).await,
            Self::None => Ok(String::new()),
        }
    }
}

/// systemd's grammar for unit names without the slash and the backslash (systemd.unit(5)): never an
/// option, never a path.
fn check_name(name: &str) -> HostResult<()> {
    let fine = (1..=200).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ":_.@-".contains(c));
    if fine {
        return Ok(());
    }
    Err(HostError::other(format!("{name:?} cannot be the name of a service")))
}

async fn ask(argv: &[&str]) -> HostResult<Output> {
    run(argv, ASK_TIMEOUT_MS).await
}

async fn run(argv: &[&str], timeout_ms: u64) -> HostResult<Output> {
    let argv = argv.iter().map(ToString::to_string).collect();
    commands::run(&CommandSpec { argv, timeout_ms, ..CommandSpec::default() }).await
}

/// Turns the end of a service manager's command into a result.
fn judge(name: &str, action: ServiceAction, output: &Output, see: &str) -> HostResult<()> {
    let what = action.verb();
    if output.timed_out {
        let message = format!("cannot {what} service {name}: it is not done in time");
        return Err(HostError::new(HostErrorKind::Timeout, message).hint(see));
    }
    if output.status == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next().unwrap_or("no reason given");
    let message = format!("cannot {what} service {name}: {said}");
    Err(HostError::new(HostErrorKind::Service, message).hint(see))
}

/// Last lines of a text file; empty when it is not there.
async fn tail(path: &Path, lines: u32) -> HostResult<String> {
    let path = path.to_owned();
    crate::host::serve::blocking(move || last_lines(&path, lines)).await
}

/// Looks at no more of the file's end than an answer may have.
fn last_lines(path: &Path, lines: u32) -> HostResult<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let failed = |error: &std::io::Error| HostError::io("read", path.display(), error);
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(&error)),
    };
    let length = file.metadata().map_err(|error| failed(&error))?.len();
    let limit = u64::try_from(crate::limits::OUTPUT_BYTES_MAX).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    Ok(all.get(all.len().saturating_sub(wanted)..).unwrap_or_default().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_options_or_paths() {
        for name in ["k3sup", "k3sup-agent", "getty@tty1", "a.b_c"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-h", "../x", "a/b", "a b", "a;b", ".hidden", "a\n"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last_lines(&path, 2).unwrap(), "");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(last_lines(&path, 2).unwrap(), "two\nthree");
        assert_eq!(last_lines(&path, 9).unwrap(), "one\ntwo\nthree");
    }

    #[tokio::test]
    async fn without_a_manager_a_start_is_refused() {
        let error = Manager::None.act("x", ServiceAction::Start, 1).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Service);
    }
}
