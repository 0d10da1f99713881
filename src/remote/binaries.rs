//! Which binary a host gets: this very program where it runs there, else one from a directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::RemoteError;
use super::elf::Has;
use super::executor::{Executor, Loaded, runs};

/// Binaries for hosts on which this program itself does not run: `k3sup-rs-<machine>` in some
/// directories, the machine as `uname -m` calls it.
#[derive(Debug, Default)]
pub struct Binaries {
    directories: Vec<PathBuf>,
    // By path, so that each is read once for all hosts.
    known: Mutex<HashMap<PathBuf, Arc<Executor>>>,
    /// Where packed ones are kept for later runs, if anywhere.
    kept: Option<PathBuf>,
}

/// A host, as far as it matters to what runs on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind<'a> {
    /// `uname -m`.
    pub(super) machine: &'a str,
    pub(super) library: Has,
}

impl Binaries {
    /// Those in `directories`, the first one that has the right one counts.
    pub fn new(directories: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self { directories, ..Self::default() })
    }

    /// Those in `first` (`--bin-dir`), if there is one, then those in `~/.cache/k3sup-rs/bin`.
    pub fn usual(first: Option<&Path>) -> Arc<Self> {
        use etcetera::BaseStrategy as _;
        let cache = etcetera::choose_base_strategy().ok();
        let cache = cache.map(|base| base.cache_dir().join("k3sup-rs/bin"));
        let directories = first.map(Path::to_owned).into_iter().chain(cache).collect();
        Arc::new(Self { directories, kept: super::packed::directory(), ..Self::default() })
    }

    /// What runs on the host called `name`: `own` if it does.
    ///
    /// # Errors
    /// Nothing that is at hand does; says why not, and how to make it.
    pub(super) async fn choose(
        &self,
        name: &str,
        own: &Arc<Executor>,
        kind: Kind<'_>,
    ) -> Result<Arc<Executor>, RemoteError> {
        let Err(reason) = fits(own.load().await?, kind) else { return Ok(Arc::clone(own)) };
        let mut reasons = vec![format!("{name} {}: this program {reason}", kind.shown())];
        for directory in &self.directories {
            let path = directory.join(format!("k3sup-rs-{}", kind.machine));
            if !path.is_file() {
                reasons.push(format!("{} is not there", path.display()));
                continue;
            }
            let executor = self.at(&path);
            let loaded = executor.load().await?;
            match fits(loaded, kind) {
                Ok(()) if loaded.is_this_version() => return Ok(executor),
                Ok(()) => reasons.push(format!("{} is of another version", path.display())),
                Err(reason) => reasons.push(format!("{} {reason}", path.display())),
            }
        }
        let machine = kind.machine;
        Err(RemoteError::Executor {
            message: format!("{}; nothing was pushed", reasons.join("; ")),
            hint: Some(format!(
                "make a static one in this program's source: `.ci/dist {machine}`, then run again \
                 with `--bin-dir target/dist`"
            )),
        })
    }

    fn at(&self, path: &Path) -> Arc<Executor> {
        let mut known = self.known.lock();
        Arc::clone(
            known
                .entry(path.to_owned())
                .or_insert_with(|| Executor::kept_at(path, self.kept.clone())),
        )
    }
}

impl Kind<'_> {
    fn shown(&self) -> String {
        match self.library {
            Has::Unknown => format!("is {}", self.machine),
            library => format!("is {} with {library}", self.machine),
        }
    }
}

/// Whether a binary runs on such a host, or why not.
fn fits(binary: &Loaded, kind: Kind<'_>) -> Result<(), String> {
    let (Some(machine), Some(needs)) = (binary.machine, binary.needs) else {
        return Err("is not a Linux binary".to_owned());
    };
    if !runs(kind.machine, machine) {
        return Err(format!("is built for {machine}"));
    }
    if kind.library.meets(needs) { Ok(()) } else { Err(format!("needs {needs}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(machine: &'static str, library: &str) -> Kind<'static> {
        Kind { machine, library: Has::parse(library) }
    }

    /// This binary with another machine's number in its header (`e_machine` of elf.h).
    fn for_aarch64(path: &Path) {
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        bytes[18] = 183;
        std::fs::write(path, bytes).unwrap();
    }

    #[tokio::test]
    async fn a_host_like_this_one_gets_this_program() {
        let own = Executor::own();
        let binaries = Binaries::default();
        let chosen = binaries.choose("one", &own, kind(std::env::consts::ARCH, "-"));
        assert!(Arc::ptr_eq(&chosen.await.unwrap(), &own));
    }

    #[tokio::test]
    async fn another_machine_gets_its_own_from_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let binaries = Binaries::new(vec![dir.path().to_owned()]);
        let (own, arm) = (Executor::own(), kind("aarch64", "-"));
        let error = binaries.choose("one", &own, arm).await.unwrap_err().to_string();
        assert!(error.contains("one is aarch64: this program is built for"), "{error}");
        assert!(error.contains("k3sup-rs-aarch64 is not there; nothing was pushed"), "{error}");
        let path = dir.path().join("k3sup-rs-aarch64");
        for_aarch64(&path);
        assert_eq!(binaries.choose("one", &own, arm).await.unwrap().path(), path);
        // Read once: what becomes of the file does not matter any more.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(binaries.choose("two", &own, arm).await.unwrap().path(), path);
    }

    #[tokio::test]
    async fn what_would_not_start_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("k3sup-rs-{}", std::env::consts::ARCH));
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let binaries = Binaries::new(vec![dir.path().to_owned()]);
        let old = kind(std::env::consts::ARCH, "glibc-2.1");
        let error = binaries.choose("old", &Executor::own(), old).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("with glibc 2.1: this program needs glibc 2."), "{text}");
        assert!(text.contains("is not a Linux binary; nothing was pushed"), "{text}");
        let RemoteError::Executor { hint, .. } = error else { panic!("{text}") };
        assert!(hint.unwrap().contains(".ci/dist"));
    }
}
