//! Packages: what is installed, and installing and removing by the host's own package manager.
//!
//! apt (Debian, Ubuntu), dnf or yum (RHEL and its kin, Fedora) and apk (Alpine). A lab host has no
//! packages of its own: what its machine has in `PATH` counts as installed.

use std::path::Path;

use crate::host::commands;
use crate::host::error::HostResult;
use crate::host::protocol::{CommandSpec, HostError, PackageAction, PackageFacts};
use crate::host::serve::Host;
use crate::limits::PACKAGES_TIMEOUT_MS;

/// How long a question to a package manager may take, in milliseconds.
const ASK_TIMEOUT_MS: u64 = 60_000;

/// A package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    /// `dnf`, or `yum` where there is no `dnf`.
    Dnf(&'static str),
    Apk,
}

impl Manager {
    fn detect() -> Option<Self> {
        let has = |name: &str| {
            let there = |dir: &str| Path::new(dir).join(name).exists();
            ["/usr/bin", "/bin", "/sbin", "/usr/sbin"].into_iter().any(there)
        };
        // On a Debian machine `dnf` may be a tool of a developer; the other way round as well, but
        // `dpkg`'s database tells.
        if has("apt-get") && Path::new("/var/lib/dpkg/status").exists() {
            return Some(Self::Apt);
        }
        let dnf = ["dnf", "yum"].into_iter().find(|name| has(name)).map(Self::Dnf);
        dnf.or_else(|| has("apk").then_some(Self::Apk))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Dnf(_) => "dnf",
            Self::Apk => "apk",
        }
    }

    /// Asks for the state of all of `names`; a status other than 0 only says that one is missing.
    fn query(self, names: &[String]) -> Vec<String> {
        let head: &[&str] = match self {
            Self::Apt => {
                &["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", "--"]
            }
            Self::Dnf(_) => &["rpm", "--query", "--queryformat", "installed %{NAME}\\n", "--"],
            Self::Apk => &["apk", "info", "--installed", "--"],
        };
        with(head, names)
    }

    /// The installed ones by what the query printed.
    fn installed(self, names: &[String], printed: &str) -> Vec<String> {
        let is_installed = |name: &String| {
            printed.lines().any(|line| match self {
                Self::Apt | Self::Dnf(_) => line.strip_prefix("installed ") == Some(name.as_str()),
                Self::Apk => line == name,
            })
        };
        names.iter().filter(|name| is_installed(name)).cloned().collect()
    }

    fn update(self) -> Vec<String> {
        let argv: &[&str] = match self {
            Self::Apt => &["apt-get", "--quiet", "update"],
            Self::Dnf(program) => &[program, "--assumeyes", "makecache"],
            Self::Apk => &["apk", "update"],
        };
        with(argv, &[])
    }

    fn change(self, names: &[String], action: PackageAction) -> Vec<String> {
        let head: &[&str] = match (self, action) {
            // A file that was changed by hand stays as it is, and nobody is asked.
            (Self::Apt, PackageAction::Install) => &[
                "apt-get",
                "--quiet",
                "--yes",
                "--no-install-recommends",
                "-o",
                "Dpkg::Options::=--force-confdef",
                "-o",
                "Dpkg::Options::=--force-confold",
                "-o",
                "DPkg::Lock::Timeout=300",
                "install",
                "--",
            ],
            (Self::Apt, PackageAction::Remove) => {
                &["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=300", "purge", "--"]
            }
            (Self::Dnf(program), PackageAction::Install) => {
                &[program, "--assumeyes", "--setopt=install_weak_deps=False", "install", "--"]
            }
            (Self::Dnf(program), PackageAction::Remove) => {
                &[program, "--assumeyes", "--noautoremove", "remove", "--"]
            }
            (Self::Apk, PackageAction::Install) => &["apk", "add", "--"],
            (Self::Apk, PackageAction::Remove) => &["apk", "del", "--"],
        };
        with(head, names)
    }
}

fn with(head: &[&str], names: &[String]) -> Vec<String> {
    head.iter().map(ToString::to_string).chain(names.iter().cloned()).collect()
}

/// Which of `names` are installed.
pub(crate) async fn read(host: &Host, names: &[String]) -> HostResult<PackageFacts> {
    names.iter().try_for_each(|name| check_name(name))?;
    if host.lab_root.is_some() {
        let installed = names.iter().filter(|name| commands::finds(name)).cloned().collect();
        return Ok(PackageFacts { manager: Some("lab".to_owned()), installed });
    }
    let Some(manager) = Manager::detect() else { return Ok(PackageFacts::default()) };
    let spec = spec(manager.query(names), ASK_TIMEOUT_MS);
    let output = commands::run(&spec).await?;
    let installed = manager.installed(names, &String::from_utf8_lossy(&output.stdout));
    Ok(PackageFacts { manager: Some(manager.name().to_owned()), installed })
}

/// Installs or removes.
pub(crate) async fn change(
    host: &Host,
    names: &[String],
    action: PackageAction,
    update_cache: bool,
) -> HostResult<()> {
    names.iter().try_for_each(|name| check_name(name))?;
    let shown = names.join(", ");
    if host.lab_root.is_some() {
        let message = format!("a lab host cannot change what its machine has: {shown}");
        return Err(HostError::other(message)
            .hint("install it on this machine with its own package manager, then run again"));
    }
    let Some(manager) = Manager::detect() else {
        return Err(HostError::other(format!("no package manager that is known has {shown}"))
            .hint("install it by hand, then run again"));
    };
    let what = match action {
        PackageAction::Install => format!("install {shown}"),
        PackageAction::Remove => format!("remove {shown}"),
    };
    if update_cache {
        commands::succeed(&spec(manager.update(), PACKAGES_TIMEOUT_MS), &what).await?;
    }
    let change = spec(manager.change(names, action), PACKAGES_TIMEOUT_MS);
    let Err(error) = commands::succeed(&change, &what).await else { return Ok(()) };
    if update_cache || action == PackageAction::Remove {
        return Err(error);
    }
    // A fresh host has no lists yet, and old lists name packages that the mirror has no more.
    commands::succeed(&spec(manager.update(), PACKAGES_TIMEOUT_MS), &what).await?;
    commands::succeed(&change, &what).await.map(drop)
}

fn spec(argv: Vec<String>, timeout_ms: u64) -> CommandSpec {
    let env = [("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C.UTF-8")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    CommandSpec { argv, env, timeout_ms, ..CommandSpec::default() }
}

/// Debian's grammar for names (Policy 5.6.7), with the upper-case letters and `_` of the others:
/// never an option, a path or an address.
fn check_name(name: &str) -> HostResult<()> {
    let fine = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= 128
        && name.chars().all(|each| each.is_ascii_alphanumeric() || "+-._".contains(each));
    if fine {
        return Ok(());
    }
    Err(HostError::other(format!("{name:?} is no name of a package")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::host::services;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_installed_is_read_from_each_managers_answer() {
        let wanted = names(&["haproxy", "keepalived"]);
        let table = [
            (Manager::Apt, "installed haproxy\nconfig-files keepalived\n"),
            (Manager::Dnf("dnf"), "installed haproxy\npackage keepalived is not installed\n"),
            (Manager::Apk, "haproxy\n"),
        ];
        for (manager, printed) in table {
            assert_eq!(manager.installed(&wanted, printed), ["haproxy"], "{manager:?}");
        }
    }

    #[test]
    fn a_name_is_never_an_option_or_a_path() {
        for name in ["-o", "", "./x.deb", "http://x/y.rpm", "a b", "a;b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("libnginx-mod-stream").is_ok() && check_name("g++").is_ok());
    }

    #[tokio::test]
    async fn a_lab_host_has_what_its_machine_has() {
        let root = Some(PathBuf::from("/lab/lb1"));
        let host = Host {
            lab_root: root,
            manager: services::Manager::None,
            sha256: None,
            doors: crate::host::measure::Doors::default(),
        };
        let facts = read(&host, &names(&["sh", "no-such-program-here"])).await.unwrap();
        assert_eq!(facts.installed, ["sh"]);
        let wanted = names(&["no-such-program-here"]);
        let error = change(&host, &wanted, PackageAction::Install, false).await.unwrap_err();
        assert!(error.hint.unwrap().contains("this machine"));
    }
}
