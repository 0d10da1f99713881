//! The one file of this room that reads disks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::YAML_BYTES_MAX;
use crate::yaml::{self, Finding, Mark};

use super::extra::{self, ExtraVars};
use super::ini;
use super::model::Inventory;
use super::source::{Source, Sources};

/// File name extensions of YAML; JSON is YAML.
const YAML_EXTENSIONS: [&str; 3] = ["yml", "yaml", "json"];

/// Inventories that come with the program, by the path that stands for each.
const BUILT_IN: [(&str, &str); 2] = [
    ("inventories/lab.yaml", include_str!("../../inventories/lab.yaml")),
    ("inventories/example.yaml", include_str!("../../inventories/example.yaml")),
];

impl Inventory {
    /// Reads the inventory at `path`, a file or a directory of files, with `group_vars` and
    /// `host_vars` beside it (or in it), and understands it. Where `inventories/lab.yaml` is not
    /// there, the one that comes with the program is meant.
    ///
    /// The findings are all that is wrong, in the order of the files.
    pub fn load(path: &Path, extra: ExtraVars) -> Result<Self, Vec<Finding>> {
        let mut reader = Reader::default();
        let mut sources = Sources { extra, file: path.display().to_string(), ..Sources::default() };
        let built_in = BUILT_IN.iter().find(|(name, _)| Path::new(name) == path && !path.exists());
        let directory = if let Some((name, text)) = built_in {
            sources.built_in = true;
            sources
                .inventory
                .extend(reader.keep((*name).to_owned(), yaml::parse_partial(name, text)));
            PathBuf::new()
        } else if path.is_dir() {
            for file in reader.list(path) {
                if file.is_file() && is_inventory_name(&file) {
                    sources.inventory.extend(reader.inventory_file(&file));
                }
            }
            path.to_owned()
        } else {
            sources.inventory.extend(reader.inventory_file(path));
            path.parent().map_or_else(PathBuf::new, Path::to_owned)
        };
        if !sources.built_in {
            sources.group_vars = reader.variables(&directory.join("group_vars"));
            sources.host_vars = reader.variables(&directory.join("host_vars"));
        }
        sources.directory = absolute(&directory);
        if reader.incomplete {
            return Err(reader.findings);
        }
        match Self::resolve(&sources) {
            Ok(inventory) if reader.findings.is_empty() => Ok(inventory),
            Ok(_) => Err(reader.findings),
            // What follows from a duplicate key is not said once more.
            Err(more) => {
                let place =
                    |finding: &Finding| (Arc::clone(&finding.file), finding.line, finding.column);
                let known: BTreeSet<_> = reader.findings.iter().map(place).collect();
                let more = more.into_iter().filter(|finding| !known.contains(&place(finding)));
                Err(reader.findings.into_iter().chain(more).collect())
            }
        }
    }

    /// Reads the arguments of `-e`: `name=value …`, a mapping in YAML or JSON, or `@file`. A later
    /// one wins.
    pub fn extra_vars<S: AsRef<str>>(arguments: &[S]) -> Result<ExtraVars, Vec<Finding>> {
        let mut reader = Reader::default();
        let mut vars = ExtraVars::new();
        for argument in arguments {
            let argument = argument.as_ref();
            let more = match argument.strip_prefix('@') {
                Some(file) => match reader.yaml_file(Path::new(file)) {
                    Some(source) => extra::from_document(&source.document),
                    None => continue,
                },
                None => extra::parse(argument),
            };
            match more {
                Ok(more) => vars.extend(more),
                Err(findings) => reader.findings.extend(findings),
            }
        }
        if reader.findings.is_empty() { Ok(vars) } else { Err(reader.findings) }
    }
}

/// Reads files and gathers what goes wrong.
#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
    /// A file could not be read as a whole: what it would say is not known.
    incomplete: bool,
}

impl Reader {
    fn inventory_file(&mut self, path: &Path) -> Option<Source> {
        let name = path.display().to_string();
        let bytes = self.bytes(path)?;
        let parsed = if looks_like_ini(path, &bytes) {
            match ini::parse(&name, &String::from_utf8_lossy(&bytes)) {
                Ok(document) => (Some(document), Vec::new()),
                Err(findings) => (None, findings),
            }
        } else {
            yaml::parse_bytes_partial(&name, &bytes)
        };
        self.keep(name, parsed)
    }

    fn yaml_file(&mut self, path: &Path) -> Option<Source> {
        let name = path.display().to_string();
        let bytes = self.bytes(path)?;
        let parsed = yaml::parse_bytes_partial(&name, &bytes);
        self.keep(name, parsed)
    }

    fn keep(
        &mut self,
        name: String,
        (document, findings): (Option<yaml::Document>, Vec<Finding>),
    ) -> Option<Source> {
        self.findings.extend(findings);
        self.incomplete |= document.is_none();
        document.map(|document| Source { name, document })
    }

    /// At most one byte more than is accepted: the parser says that it is too much.
    fn bytes(&mut self, path: &Path) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = YAML_BYTES_MAX as u64 + 1;
        match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
            Ok(_) => Some(bytes),
            Err(error) => {
                self.fail(path, &error);
                None
            }
        }
    }

    fn fail(&mut self, path: &Path, error: &std::io::Error) {
        self.incomplete = true;
        let mark = Mark::new(path.display().to_string(), 1, 1);
        let finding = mark.finding(format!("cannot be read: {error}"));
        self.findings.push(match error.kind() {
            std::io::ErrorKind::NotFound => {
                finding.hint("name a file with -i; `-i inventories/lab.yaml` needs none")
            }
            _ => finding,
        });
    }

    /// The entries of a directory, by name; none if it is not there.
    fn list(&mut self, path: &Path) -> Vec<PathBuf> {
        match std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => {
                let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
                paths.sort();
                paths
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.fail(path, &error);
                Vec::new()
            }
        }
    }

    /// The files of `group_vars` or `host_vars`: `name`, `name.yml`, or `name/*.yml`.
    fn variables(&mut self, path: &Path) -> BTreeMap<String, Vec<Source>> {
        let mut found: BTreeMap<String, Vec<Source>> = BTreeMap::new();
        for entry in self.list(path) {
            if is_hidden(&entry) {
                continue;
            }
            let is_directory = entry.is_dir();
            let Some(name) = (if is_directory { entry.file_name() } else { variables_of(&entry) })
            else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            let files = if is_directory { self.list(&entry) } else { vec![entry] };
            for file in files {
                if file.is_file() && !is_hidden(&file) && variables_of(&file).is_some() {
                    let source = self.yaml_file(&file);
                    found.entry(name.clone()).or_default().extend(source);
                }
            }
        }
        found
    }
}

/// The name of the host or group that a file of variables belongs to. Host names have dots, so only
/// the known extensions are taken off.
fn variables_of(path: &Path) -> Option<&std::ffi::OsStr> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) if YAML_EXTENSIONS.contains(&extension) => path.file_stem(),
        Some("orig" | "bak" | "swp" | "retry" | "md" | "txt") => None,
        _ => path.file_name(),
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| {
        let name = name.to_string_lossy();
        name.starts_with('.') || name.ends_with('~')
    })
}

fn is_inventory_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    !is_hidden(path)
        && extension.is_none_or(|known| YAML_EXTENSIONS.contains(&known) || known == "ini")
}

/// Whether a file has the INI form: by its extension, else by its first line that says something.
fn looks_like_ini(path: &Path, bytes: &[u8]) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ini" | "cfg") => true,
        Some(extension) if YAML_EXTENSIONS.contains(&extension) => false,
        _ => {
            let text = String::from_utf8_lossy(bytes);
            let first =
                text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
            first.is_some_and(|line| {
                line.starts_with(['[', ';']) || !(line.contains(':') || line.starts_with("---"))
            })
        }
    }
}

fn absolute(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
