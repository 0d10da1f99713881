//! Where a host's K3s comes from: files on this machine, a release downloaded here once, or a
//! release that the host downloads itself.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::download::{DownloadError, Downloads};
use super::elf;
use crate::error::{ExitCode, Failure, chain};

/// Where releases are, when `k3s_artifact_url` says nothing.
const ARTIFACT_URL: &str = "https://github.com/k3s-io/k3s/releases/download";

/// Where channels are, when `k3s_channel_url` says nothing.
const CHANNEL_URL: &str = "https://update.k3s.io/v1-release/channels";

/// What is installed when the inventory says nothing: as K3s's own installer does.
const CHANNEL_DEFAULT: &str = "stable";

/// What the inventory says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// A file, or files by architecture.
    binary: Json,
    /// A directory with files named as in releases.
    bin_dir: Option<String>,
    /// A file, a list of files, or either by architecture.
    images: Json,
    version: Option<String>,
    channel: Option<String>,
    on_hosts: bool,
    artifact_url: Option<String>,
    channel_url: Option<String>,
}

impl Said {
    /// `look` gives a variable's value, null without one.
    pub(super) fn of(look: impl Fn(&str) -> Result<Json, String>) -> Result<Self, String> {
        let text = |name: &str| match look(name)? {
            Json::Null => Ok(None),
            Json::String(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(format!("`{name}` must be a text")),
        };
        let on_hosts = match text("k3s_download")?.as_deref() {
            None | Some("control") => false,
            Some("hosts") => true,
            Some(_) => return Err("`k3s_download` is `control` or `hosts`".to_owned()),
        };
        let said = Self {
            binary: look("k3s_binary")?,
            bin_dir: text("k3s_bin_dir")?,
            images: look("k3s_airgap_images")?,
            version: text("k3s_version")?,
            channel: text("k3s_channel")?,
            on_hosts,
            artifact_url: text("k3s_artifact_url")?,
            channel_url: text("k3s_channel_url")?,
        };
        let files = [!said.binary.is_null(), said.bin_dir.is_some()];
        let releases = [said.version.is_some(), said.channel.is_some()];
        let given = files.iter().chain(&releases).filter(|given| **given).count();
        // A directory together with a version is one of that version.
        if given > 1 && !(given == 2 && said.bin_dir.is_some() && said.version.is_some()) {
            return Err("give one of `k3s_binary`, `k3s_bin_dir`, `k3s_version` and `k3s_channel`"
                .to_owned());
        }
        if said.on_hosts && said.version.is_none() {
            return Err("`k3s_download: hosts` needs `k3s_version`".to_owned());
        }
        Ok(said)
    }
}

/// An architecture in the names of K3s's releases.
struct Release {
    /// As in `sha256sum-amd64.txt`.
    name: &'static str,
    /// As in `k3s-arm64`.
    suffix: &'static str,
}

/// By what `uname -m` says (K3s's installer, `setup_verify_arch`).
fn release(architecture: &str) -> Option<Release> {
    let (name, suffix) = match architecture {
        "x86_64" | "amd64" => ("amd64", ""),
        "aarch64" | "arm64" => ("arm64", "-arm64"),
        "s390x" => ("s390x", "-s390x"),
        other if other.starts_with("arm") => ("arm", "-armhf"),
        _ => return None,
    };
    Some(Release { name, suffix })
}

/// Finds K3s for hosts; what is the same for several is looked for once.
pub(super) struct Sources {
    downloads: Option<Downloads>,
    check: bool,
    channels: BTreeMap<String, String>,
}

impl Sources {
    /// In a check no binary is downloaded.
    pub(super) fn new(check: bool) -> Self {
        Self { downloads: None, check, channels: BTreeMap::new() }
    }

    /// The value of `k3s_source` for a host of `architecture`.
    pub(super) async fn resolve(
        &mut self,
        said: &Said,
        architecture: &str,
    ) -> Result<Json, Failure> {
        let bad = |why: String| Failure::new(ExitCode::BadInput, why);
        let Some(release) = release(architecture) else {
            return Err(bad(format!("there is no K3s for {architecture}")));
        };
        let mut source = json!({ "binary": "", "images": images(said, &release).map_err(bad)?,
            "url": "", "sums_url": "", "file": "", "version": said.version });
        let file = format!("k3s{}", release.suffix);
        let local = local(said, architecture, &file).map_err(bad)?;
        let mut set = |key: &str, value: Json| {
            if let Some(entry) = source.get_mut(key) {
                *entry = value;
            }
        };
        if let Some(path) = local {
            fits(&path, architecture).map_err(|why| {
                bad(format!("{}: {why}", path.display())).hint(
                    "give the binary of each architecture: `k3s_binary: {x86_64: …, aarch64: …}`",
                )
            })?;
            set("binary", path.to_string_lossy().into());
            return Ok(source);
        }
        let base = said.artifact_url.as_deref().unwrap_or(ARTIFACT_URL).trim_end_matches('/');
        let version = match &said.version {
            Some(version) => version.clone(),
            None => self.version_of(said).await?,
        };
        let folder = format!("{base}/{}", version.replace('+', "%2B"));
        let url = format!("{folder}/{file}");
        let sums_url = format!("{folder}/sha256sum-{}.txt", release.name);
        set("version", version.as_str().into());
        if said.on_hosts {
            set("url", url.into());
            set("sums_url", sums_url.into());
            set("file", file.into());
            return Ok(source);
        }
        let check = self.check;
        let downloads = self.downloads().map_err(failed)?;
        let path = downloads.release(&version, &file, &url, &sums_url, check).await;
        let path = path.map_err(failed)?;
        set(
            "binary",
            path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default().into(),
        );
        Ok(source)
    }

    async fn version_of(&mut self, said: &Said) -> Result<String, Failure> {
        let base = said.channel_url.as_deref().unwrap_or(CHANNEL_URL).trim_end_matches('/');
        let url = format!("{base}/{}", said.channel.as_deref().unwrap_or(CHANNEL_DEFAULT));
        if let Some(version) = self.channels.get(&url) {
            return Ok(version.clone());
        }
        let version = self.downloads().map_err(failed)?.channel(&url).await.map_err(failed)?;
        self.channels.insert(url, version.clone());
        Ok(version)
    }

    fn downloads(&mut self) -> Result<&Downloads, DownloadError> {
        let downloads = match self.downloads.take() {
            Some(downloads) => downloads,
            None => Downloads::new()?,
        };
        Ok(self.downloads.insert(downloads))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
fn failed(error: DownloadError) -> Failure {
    Failure::new(ExitCode::Error, format!("cannot get K3s: {}", chain(&error))).hint(
        "without a way out, give `k3s_binary` or `k3s_bin_dir` (and `k3s_airgap_images`): docs/k3s.md",
    )
}

/// The binary that the inventory names as a file.
fn local(said: &Said, architecture: &str, file: &str) -> Result<Option<PathBuf>, String> {
    let path = match (&said.binary, &said.bin_dir) {
        (Json::String(path), _) => expanded(path),
        (Json::Object(by), _) => {
            let Some(Json::String(path)) = by_architecture(by, architecture) else {
                return Err(format!("`k3s_binary` has none for {architecture}"));
            };
            expanded(path)
        }
        (Json::Null, Some(dir)) => expanded(dir).join(file),
        (Json::Null, None) => return Ok(None),
        _ => return Err("`k3s_binary` must be a path, or paths by architecture".to_owned()),
    };
    if path.is_file() {
        return Ok(Some(path));
    }
    Err(format!("{} is not there, the K3s for {architecture}", path.display()))
}

fn by_architecture<'a>(by: &'a serde_json::Map<String, Json>, name: &str) -> Option<&'a Json> {
    let other = release(name).map(|release| release.name);
    by.get(name).or_else(|| by.get(other?))
}

/// The files with images: those that are named, and those in the directory of binaries.
fn images(said: &Said, release: &Release) -> Result<Vec<String>, String> {
    let listed = match &said.images {
        Json::Object(by) => by_architecture(by, release.name).unwrap_or(&Json::Null),
        other => other,
    };
    let mut paths: Vec<PathBuf> = match listed {
        Json::Null => Vec::new(),
        Json::String(path) => vec![expanded(path)],
        Json::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map(expanded));
            texts.collect::<Option<_>>().ok_or("`k3s_airgap_images` must be paths")?
        }
        _ => return Err("`k3s_airgap_images` must be paths, or paths by architecture".to_owned()),
    };
    if let (Json::Null, Some(dir)) = (&said.images, &said.bin_dir) {
        let name = format!("k3s-airgap-images-{}.tar", release.name);
        let endings = [".zst", ".gz", ""];
        let found = endings.map(|ending| expanded(dir).join(format!("{name}{ending}")));
        paths.extend(found.into_iter().find(|path| path.is_file()));
    }
    if let Some(missing) = paths.iter().find(|path| !path.is_file()) {
        return Err(format!("{} is not there (`k3s_airgap_images`)", missing.display()));
    }
    Ok(paths.iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

/// Absolute paths of the files that variables name, by the variables' names; an empty text for none.
pub(super) fn files(
    look: &impl Fn(&str) -> Result<Json, String>,
    names: &[&str],
) -> Result<Json, String> {
    let mut found = serde_json::Map::new();
    for name in names {
        let path = match look(name)? {
            Json::Null => String::new(),
            Json::String(path) => {
                let path = expanded(&path);
                if !path.is_file() {
                    return Err(format!("{} is not there (`{name}`)", path.display()));
                }
                path.to_string_lossy().into_owned()
            }
            _ => return Err(format!("`{name}` must be a path")),
        };
        found.insert((*name).to_owned(), path.into());
    }
    Ok(Json::Object(found))
}

/// An absolute path: `~/` is the present user's home.
fn expanded(path: &str) -> PathBuf {
    let path = match (path.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(path),
    };
    std::path::absolute(&path).unwrap_or(path)
}

/// Whether the program at `path` runs on `architecture`.
fn fits(path: &Path, architecture: &str) -> Result<(), String> {
    let mut header = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(elf::HEADER_BYTES as u64).read_to_end(&mut header));
    read.map_err(|error| error.to_string())?;
    elf::mismatch(&header, architecture).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(vars: &Json) -> Result<Said, String> {
        Said::of(|name| Ok(vars.get(name).cloned().unwrap_or_default()))
    }

    async fn resolved(vars: &Json, architecture: &str) -> Result<Json, String> {
        let said = said(vars)?;
        let found = Sources::new(false).resolve(&said, architecture).await;
        found.map_err(|failure| failure.message)
    }

    #[tokio::test]
    async fn files_are_found_by_architecture() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_string_lossy().into_owned();
        for name in ["k3s", "k3s-arm64", "k3s-airgap-images-arm64.tar.zst"] {
            std::fs::write(dir.path().join(name), "#!/bin/sh\n").unwrap();
        }
        let by_dir = json!({ "k3s_bin_dir": root });
        let x86 = resolved(&by_dir, "x86_64").await.unwrap();
        assert_eq!((&x86["binary"], &x86["images"]), (&json!(format!("{root}/k3s")), &json!([])));
        let arm = resolved(&by_dir, "aarch64").await.unwrap();
        assert_eq!(arm["binary"], json!(format!("{root}/k3s-arm64")));
        assert_eq!(arm["images"], json!([format!("{root}/k3s-airgap-images-arm64.tar.zst")]));
        let map = json!({ "k3s_binary": { "amd64": format!("{root}/k3s") } });
        assert_eq!(resolved(&map, "x86_64").await.unwrap()["binary"], x86["binary"]);
        let none = resolved(&map, "aarch64").await.unwrap_err();
        assert_eq!(none, "`k3s_binary` has none for aarch64");
        assert!(resolved(&by_dir, "armv7l").await.unwrap_err().contains("k3s-armhf is not there"));
        assert!(resolved(&by_dir, "riscv64").await.unwrap_err().contains("no K3s for riscv64"));
    }

    #[tokio::test]
    async fn a_binary_for_another_machine_is_refused_before_it_is_pushed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k3s");
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1];
        header.resize(18, 0);
        header.extend([0xb7, 0]);
        std::fs::write(&path, header).unwrap();
        let vars = json!({ "k3s_binary": path.to_str().unwrap() });
        assert!(resolved(&vars, "aarch64").await.is_ok());
        let refused = resolved(&vars, "x86_64").await.unwrap_err();
        assert!(refused.ends_with("it is for aarch64, the host is x86_64"), "{refused}");
    }

    #[tokio::test]
    async fn hosts_that_download_are_told_from_where() {
        let vars = json!({ "k3s_version": "v1.36.3+k3s1", "k3s_download": "hosts" });
        let source = resolved(&vars, "aarch64").await.unwrap();
        assert_eq!(source["url"], format!("{ARTIFACT_URL}/v1.36.3%2Bk3s1/k3s-arm64"));
        assert_eq!(
            source["sums_url"],
            format!("{ARTIFACT_URL}/v1.36.3%2Bk3s1/sha256sum-arm64.txt")
        );
        assert_eq!((&source["file"], &source["binary"]), (&json!("k3s-arm64"), &json!("")));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for vars in [
            json!({ "k3s_binary": "a", "k3s_version": "v1" }),
            json!({ "k3s_version": "v1", "k3s_channel": "stable" }),
            json!({ "k3s_download": "hosts" }),
            json!({ "k3s_download": "elsewhere", "k3s_version": "v1" }),
            json!({ "k3s_version": 1.3 }),
        ] {
            assert!(said(&vars).is_err(), "{vars}");
        }
        assert!(said(&json!({ "k3s_bin_dir": "a", "k3s_version": "v1" })).is_ok());
    }
}
