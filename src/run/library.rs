//! Where playbooks and templates come from: built in, unless a file on disk has the same name and
//! says something else.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::limits::YAML_BYTES_MAX;
use crate::modules::LocalFile;
use crate::playbook::{Source, SourceFile};
use crate::template::is_safe_name;

macro_rules! built_in {
    ($($path:literal),* $(,)?) => {
        /// Files that are compiled in.
        static BUILT_IN: &[(&str, &str)] = &[
            $(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),*
        ];
    };
}

built_in![
    "playbooks/k3s/download.yml",
    "playbooks/k3s/forget-node.yml",
    "playbooks/certificate-rotate-ca-drop.yml",
    "playbooks/certificate-rotate-ca-sign.yml",
    "playbooks/certificate-rotate-ca-trust.yml",
    "playbooks/certificate-rotate.yml",
    "playbooks/k3s/certificate-rotate.yml",
    "playbooks/k3s/forget-password.yml",
    "playbooks/k3s/install.yml",
    "playbooks/k3s/remove-node.yml",
    "playbooks/k3s/remove.yml",
    "playbooks/k3s/replace.yml",
    "playbooks/k3s/reset.yml",
    "playbooks/k3s/restart.yml",
    "playbooks/k3s/restore.yml",
    "playbooks/k3s/site.yml",
    "playbooks/k3s/snapshot-monitor.yml",
    "playbooks/k3s/token-rotate.yml",
    "playbooks/k3s/upgrade-node.yml",
    "playbooks/k3s/upgrade.yml",
    "playbooks/k3s/verify-quorum.yml",
    "playbooks/k3s/verify-restore.yml",
    "playbooks/k3s/verify.yml",
    "playbooks/loadbalancer-haproxy.yml",
    "playbooks/loadbalancer-keepalived.yml",
    "playbooks/loadbalancer-nginx.yml",
    "playbooks/loadbalancer-remember.yml",
    "playbooks/remove-loadbalancer.yml",
    "playbooks/remove-executor.yml",
    "playbooks/remove-node.yml",
    "playbooks/remove.yml",
    "playbooks/replace.yml",
    "playbooks/reset.yml",
    "playbooks/restart.yml",
    "playbooks/restore.yml",
    "playbooks/site.yml",
    "playbooks/take-out.yml",
    "playbooks/upgrade-node.yml",
    "playbooks/upgrade.yml",
    "playbooks/token-rotate.yml",
    "playbooks/verify-quorum.yml",
    "playbooks/verify-restore.yml",
    "playbooks/verify.yml",
    "templates/agent.openrc.j2",
    "templates/agent.service.j2",
    "templates/agent.yaml.j2",
    "templates/bootstrap.yaml.j2",
    "templates/cloud-init.yaml.j2",
    "templates/env.j2",
    "templates/haproxy.cfg.j2",
    "templates/haproxy.service.j2",
    "templates/k3os.yaml.j2",
    "templates/k3s/agent.yaml.j2",
    "templates/k3s/bootstrap.yaml.j2",
    "templates/k3s/datastore.yaml.j2",
    "templates/k3s/k3s.openrc.j2",
    "templates/k3s/k3s.service.j2",
    "templates/k3s/killall.sh.j2",
    "templates/k3s/logrotate.j2",
    "templates/k3s/register.yaml.j2",
    "templates/k3s/server.yaml.j2",
    "templates/k3s/service.env.j2",
    "templates/k3s/snapshot-monitor.yaml.j2",
    "templates/k3s/uninstall.sh.j2",
    "templates/keepalived.conf.j2",
    "templates/kube-vip.yaml.j2",
    "templates/loadbalancer.yaml.j2",
    "templates/nginx.conf.j2",
    "templates/server.openrc.j2",
    "templates/server.service.j2",
    "templates/server.yaml.j2",
    "templates/snapshot-s3.yaml.j2",
];

/// Playbooks and templates.
#[derive(Clone, Debug)]
pub struct Library {
    /// Directories whose files win, the first one first.
    directories: Vec<Directory>,
    /// The playbook that is run is one's own.
    ones_own: bool,
    /// Long files that were hashed already.
    long: Arc<Mutex<BTreeMap<PathBuf, Hashed>>>,
}

/// A long file, once it was hashed.
type Hashed = Arc<Mutex<Option<LocalFile>>>;

/// Longest file that is held in memory, in bytes.
const SHORT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a file of the control machine holds.
#[derive(Clone, Debug)]
pub enum LocalContent {
    /// All of it.
    Short(Vec<u8>),
    /// Too long to be held for each host.
    Long(LocalFile),
}

/// A directory with files that win.
#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    /// Somebody named it, so files that lie in it itself count, too. In the directory that a person
    /// happens to stand in only those of `playbooks`, `templates` and `files` do.
    named: bool,
}

impl Directory {
    /// Where the file `name` of a kind may be.
    fn candidates(&self, kind: &str, name: &str) -> Vec<PathBuf> {
        let (own, below) = (self.path.join(name), self.path.join(kind).join(name));
        match (self.named, kind) {
            (true, "playbooks") => vec![own, below],
            (true, _) => vec![below, own],
            (false, _) => vec![below],
        }
    }
}

/// A file and where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: SourceFile,
    /// `built in`, or its path.
    pub origin: String,
    /// It stands in for a built-in one and says something else.
    pub replaces: bool,
}

impl Library {
    /// A library in which files of `playbook_dir` (`--playbook-dir`) win; without it those of
    /// `here`, the directory that the person works in.
    pub fn new(playbook_dir: Option<&Path>, here: &Path) -> Self {
        let path = playbook_dir.unwrap_or(here).to_owned();
        let directories = vec![Directory { path, named: playbook_dir.is_some() }];
        Self { directories, ones_own: false, long: Arc::default() }
    }

    /// A library of the built-in files alone.
    pub fn built_in() -> Self {
        Self { directories: Vec::new(), ones_own: false, long: Arc::default() }
    }

    /// The same for a playbook of one's own: what has a built-in file's name has it by chance.
    pub fn of_ones_own(self) -> Self {
        Self { ones_own: true, ..self }
    }

    /// Whether [`Self::of_ones_own`] made it.
    pub(crate) fn is_ones_own(&self) -> bool {
        self.ones_own
    }

    /// What a person types for the playbook `name`: `up` for `site.yml`, `token rotate` for
    /// `token-rotate.yml`, `play mine.yml` for one of their own.
    pub fn verb(&self, name: &str) -> String {
        match name.strip_suffix(".yml") {
            _ if Self::built_in().playbook(name).is_err() => format!("play {name}"),
            Some("site") => "up".to_owned(),
            Some("verify-quorum") => "verify --quorum-loss".to_owned(),
            Some("verify-restore") => "verify".to_owned(),
            Some(verb) if verb.starts_with("certificate-rotate-ca-") => {
                "certificate rotate-ca".to_owned()
            }
            Some(verb) => verb.replacen('-', " ", 1),
            None => name.to_owned(),
        }
    }

    /// The playbook `name`, for example `site.yml`.
    pub fn playbook(&self, name: &str) -> Result<Found, String> {
        self.find("playbooks", name)
    }

    /// The template `name`, for example `server.yaml.j2`.
    pub fn template(&self, name: &str) -> Result<Found, String> {
        self.find("templates", name)
    }

    /// The file `name` for `copy`, which is never built in.
    pub fn file(&self, name: &str) -> Result<LocalContent, String> {
        let path = Path::new(name);
        let candidates: Vec<PathBuf> = if path.is_absolute() {
            vec![path.to_owned()]
        } else {
            self.directories.iter().flat_map(|one| one.candidates("files", name)).collect()
        };
        for candidate in candidates {
            if candidate.is_file() {
                return self
                    .content(&candidate)
                    .map_err(|error| format!("cannot read {}: {error}", candidate.display()));
            }
        }
        Err(format!("there is no file `{name}` on the control machine"))
    }

    /// A short file whole; of a long one what it takes to send it. It is hashed once in a run.
    fn content(&self, path: &Path) -> io::Result<LocalContent> {
        let size = fs::metadata(path)?.len();
        if size <= SHORT_BYTES_MAX {
            return fs::read(path).map(LocalContent::Short);
        }
        let place = Arc::clone(self.long.lock().entry(path.to_owned()).or_default());
        // Who comes while it is hashed waits for that.
        let mut known = place.lock();
        if let Some(file) = known.as_ref().filter(|file| file.size == size) {
            return Ok(LocalContent::Long(file.clone()));
        }
        let sha256 = sha256_of(path)?;
        let file =
            LocalFile { path: std::path::absolute(path)?.to_string_lossy().into(), sha256, size };
        *known = Some(file.clone());
        Ok(LocalContent::Long(file))
    }

    /// Begins to hash the long ones of files that will be asked for, while hosts are connected to.
    pub(super) fn read_ahead(&self, names: Vec<String>) {
        let library = self.clone();
        // What is wrong with one is said to who asks for it.
        std::thread::spawn(move || names.iter().for_each(|name| drop(library.file(name))));
    }

    fn find(&self, kind: &str, name: &str) -> Result<Found, String> {
        if !is_safe_name(name) {
            return Err("the name leaves its directory".to_owned());
        }
        let path = format!("{kind}/{name}");
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == path).map(|(_, text)| Found {
            file: SourceFile { name: path.clone(), text: (*text).to_owned() },
            origin: "built in".to_owned(),
            replaces: false,
        });
        for directory in &self.directories {
            for candidate in directory.candidates(kind, name) {
                if let Some(text) = read(&candidate, &directory.path)? {
                    if let Some(built_in) = built_in.as_ref().filter(|it| it.file.text == text) {
                        return Ok(built_in.clone());
                    }
                    let origin = candidate.display().to_string();
                    let file = SourceFile { name: origin.clone(), text };
                    let replaces = built_in.is_some() && !self.ones_own;
                    return Ok(Found { file, origin, replaces });
                }
            }
        }
        built_in.ok_or_else(|| format!("there is no {path}, neither built in nor on disk"))
    }
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let length = file.read(&mut chunk)?;
        let Some(bytes @ [_, ..]) = chunk.get(..length) else { break };
        hasher.update(bytes);
    }
    Ok(hex::encode(hasher.finalize()))
}

/// The text of `path`; `None` when there is none. A link that leads out of `root` is refused.
fn read(path: &Path, root: &Path) -> Result<Option<String>, String> {
    if !path.is_file() {
        return Ok(None);
    }
    let show = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let real = path.canonicalize().map_err(show)?;
    if !real.starts_with(root.canonicalize().map_err(show)?) {
        return Err(format!("{} leads out of {}", path.display(), root.display()));
    }
    let length = fs::metadata(&real).map_err(show)?.len();
    if length > YAML_BYTES_MAX as u64 {
        return Err(format!("{} has more than {YAML_BYTES_MAX} bytes", path.display()));
    }
    fs::read_to_string(&real).map(Some).map_err(show)
}

impl Source for Library {
    fn file(&self, path: &str) -> Result<SourceFile, String> {
        self.playbook(path).map(|found| found.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_disk_wins_and_the_origin_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::new(None, directory.path());
        assert_eq!(library.playbook("site.yml").unwrap().origin, "built in");
        assert_eq!(library.verb("site.yml"), "up");
        assert_eq!(library.verb("mine.yml"), "play mine.yml");
        fs::create_dir(directory.path().join("playbooks")).unwrap();
        let path = directory.path().join("playbooks/site.yml");
        fs::write(&path, "[]").unwrap();
        let found = library.playbook("site.yml").unwrap();
        assert_eq!((found.file.text.as_str(), found.origin), ("[]", path.display().to_string()));
        fs::write(&path, Library::built_in().playbook("site.yml").unwrap().file.text).unwrap();
        assert_eq!(library.playbook("site.yml").unwrap().origin, "built in", "the same text");
        assert!(library.playbook("../x").unwrap_err().contains("leaves"));
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("playbooks/p.yml"))
            .unwrap();
        assert!(library.playbook("p.yml").unwrap_err().contains("leads out"));
    }

    #[test]
    fn every_built_in_playbook_can_be_read() {
        let library = Library::built_in();
        for (path, _) in BUILT_IN.iter().filter(|(path, _)| path.starts_with("playbooks/")) {
            let name = path.trim_start_matches("playbooks/");
            let name = name.trim_start_matches("k3s/");
            // Files of tasks, which others import.
            let tasks = [
                "install.yml",
                "download.yml",
                "snapshot-monitor.yml",
                "take-out.yml",
                "upgrade-node.yml",
            ];
            if tasks.contains(&name)
                || name.starts_with("forget-")
                || name.starts_with("remove-")
                || name.starts_with("loadbalancer-")
            {
                continue;
            }
            let name = path.trim_start_matches("playbooks/");
            let found = library.playbook(name).unwrap();
            if let Err(findings) = crate::playbook::parse(&found.file, &library) {
                panic!("{}", crate::yaml::report(&findings));
            }
        }
    }
}
