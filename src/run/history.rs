//! Runs that were: what their journals say.
//!
//! A journal whose last line is missing is one of a run that goes on, when its process still holds
//! the journal, or of one that died. Damaged lines (a full disk, a power cut) are left out and
//! counted. Journals of older versions have no first line; what can be known is said.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;
use serde_json::Value as Json;

use super::event::Event;
use super::journal::{Beginning, Ending};

/// Longest line that is read, in bytes: a diff of the longest file a template makes fits.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What the file name of a journal ends with.
const SUFFIX: &str = ".jsonl";

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All went well.
    Ok,
    /// It ended with another exit code than 0.
    Failed,
    /// It goes on.
    Running,
    /// It ended without a word: killed, or the machine went down. Run again, it does what is left.
    Died,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Which.
    #[serde(flatten)]
    pub beginning: Beginning,
    /// When it began, milliseconds since 1970.
    pub began_unix_ms: u64,
    /// When its last line was written.
    pub last_unix_ms: u64,
    /// How it stands.
    pub outcome: Outcome,
    /// Its exit code, once it ended.
    pub exit: Option<u8>,
    /// What failed and why.
    pub message: Option<String>,
    /// It only looked.
    pub check: bool,
    /// Lines that cannot be read.
    pub damaged: u64,
}

/// A run with everything that happened in it.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// The run.
    #[serde(flatten)]
    pub record: Record,
    /// What happened, in order, each with its time in milliseconds since 1970.
    pub events: Vec<(u64, Event)>,
}

/// All runs whose journals are in `directory`, newest first. No directory: none.
///
/// # Errors
/// The directory cannot be listed. Files that cannot be read are left out.
pub fn list(directory: &Path) -> io::Result<Vec<Record>> {
    let mut records: Vec<Record> =
        journals(directory)?.into_iter().filter_map(|path| read(&path, |_, _| {}).ok()).collect();
    records.sort_by(|one, other| {
        let key = |record: &Record| (record.began_unix_ms, record.beginning.id.clone());
        key(other).cmp(&key(one))
    });
    Ok(records)
}

/// The run that is called `id`, or whose name begins so; `last` is the newest. `None`: there is no
/// such run, or several.
///
/// # Errors
/// The journal cannot be read.
pub fn story(directory: &Path, id: &str) -> io::Result<Option<Story>> {
    let mut found = journals(directory)?;
    if id == "last" {
        let Some(newest) = list(directory)?.into_iter().next() else { return Ok(None) };
        found.retain(|path| name_of(path) == Some(&newest.beginning.id));
    } else if found.iter().any(|path| name_of(path) == Some(id)) {
        found.retain(|path| name_of(path) == Some(id));
    } else {
        found.retain(|path| name_of(path).is_some_and(|name| name.starts_with(id)));
    }
    let [path] = found.as_slice() else { return Ok(None) };
    let mut events = Vec::new();
    let record = read(path, |at, event| events.push((at, event)))?;
    Ok(Some(Story { record, events }))
}

fn journals(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| name_of(path).is_some()).collect())
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)
}

/// Reads a journal line by line; `tell` is given every event.
fn read(path: &Path, mut tell: impl FnMut(u64, Event)) -> io::Result<Record> {
    let file = File::open(path)?;
    // Looked at before the lines: a run that ends meanwhile has its last line by then.
    let held = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(error) => error == rustix::io::Errno::WOULDBLOCK,
        Ok(()) => rustix::fs::flock(&file, FlockOperation::Unlock).is_err(),
    };
    let mut record = unknown(path);
    let mut ending = None;
    let mut input = BufReader::new(file);
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Ok(Json::Object(said)) = serde_json::from_slice(&line) else {
            record.damaged += 1;
            continue;
        };
        let at = said.get("at_unix_ms").and_then(Json::as_u64).unwrap_or(record.last_unix_ms);
        record.last_unix_ms = at;
        let kind = said.get("event").and_then(Json::as_str).unwrap_or_default().to_owned();
        let said = Json::Object(said);
        match kind.as_str() {
            "begin" => {
                record.began_unix_ms = at;
                record.beginning = serde_json::from_value(said).unwrap_or(record.beginning);
            }
            "end" => ending = serde_json::from_value::<Ending>(said).ok(),
            _ => match serde_json::from_value(said) {
                Ok(event) => {
                    note(&mut record, &event);
                    tell(at, event);
                }
                Err(_) => record.damaged += 1,
            },
        }
    }
    record.outcome = match (&ending, held) {
        (Some(ending), _) if ending.exit == 0 => Outcome::Ok,
        (Some(_), _) => Outcome::Failed,
        (None, true) => Outcome::Running,
        (None, false) => Outcome::Died,
    };
    record.exit = ending.as_ref().map(|ending| ending.exit);
    record.message = ending.and_then(|ending| ending.message);
    Ok(record)
}

fn note(record: &mut Record, event: &Event) {
    if let Event::Run { playbook, check, .. } = event {
        record.check = *check;
        if record.beginning.what.is_empty() {
            record.beginning.what.clone_from(playbook);
        }
    }
}

/// What the file's name alone says.
fn unknown(path: &Path) -> Record {
    let id = name_of(path).unwrap_or_default().to_owned();
    let seconds = id.split('-').next().and_then(|stamp| stamp.parse::<u64>().ok()).unwrap_or(0);
    Record {
        beginning: Beginning { id, ..Beginning::default() },
        began_unix_ms: seconds.saturating_mul(1000),
        last_unix_ms: seconds.saturating_mul(1000),
        outcome: Outcome::Died,
        exit: None,
        message: None,
        check: false,
        damaged: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::event::EventSink;
    use super::super::journal::Journal;
    use super::*;

    fn begin(directory: &Path, id: &str) -> Journal {
        let text = |text: &str| text.to_owned();
        let beginning = Beginning {
            id: text(id),
            what: text("up"),
            inventory: text("/home/ada/inventory.yaml"),
            cluster: text("lab"),
            by: text("ada@laptop pid 1"),
            version: text("1"),
        };
        Journal::begin(directory, &beginning).unwrap()
    }

    #[test]
    fn a_run_goes_on_ends_or_died() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert!(list(&runs).unwrap().is_empty());
        let outcomes = || -> Vec<_> {
            let mut found = list(&runs).unwrap();
            found.sort_by(|one, other| one.beginning.id.cmp(&other.beginning.id));
            found.into_iter().map(|record| (record.beginning.id, record.outcome)).collect()
        };
        let mut good = begin(&runs, "100-1");
        good.event(&Event::Warning { message: "mind the step".to_owned() });
        assert_eq!(outcomes(), [("100-1".to_owned(), Outcome::Running)]);
        good.end(&Ending::default());
        drop(good);
        let mut bad = begin(&runs, "100-2");
        bad.end(&Ending { exit: 2, message: Some("failed on server1".to_owned()) });
        drop((bad, begin(&runs, "200-3")));
        let expected =
            [("100-1", Outcome::Ok), ("100-2", Outcome::Failed), ("200-3", Outcome::Died)];
        assert_eq!(outcomes(), expected.map(|(id, outcome)| (id.to_owned(), outcome)));

        let told = story(&runs, "100-1").unwrap().unwrap();
        assert_eq!(told.events.len(), 1);
        assert_eq!(told.record.beginning.cluster, "lab");
        assert_eq!(story(&runs, "last").unwrap().unwrap().record.beginning.id, "200-3");
        assert!(story(&runs, "100").unwrap().is_none(), "two runs begin so");
        assert_eq!(story(&runs, "2").unwrap().unwrap().record.beginning.id, "200-3");
        assert!(story(&runs, "7").unwrap().is_none());
    }

    #[test]
    fn a_torn_line_costs_only_itself_and_old_journals_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1700000000-7.jsonl");
        let mut file = File::create(&path).unwrap();
        let run =
            r#"{"event":"run","id":"1700000000-7","playbook":"site.yml (built in)","check":true}"#;
        let warning = r#"{"event":"warning","message":"x"}"#;
        write!(file, "{run}\n{{\"event\":\"wa\n{warning}\n{{\"eve").unwrap();
        let told = story(dir.path(), "1700000000-7").unwrap().unwrap();
        assert_eq!((told.events.len(), told.record.damaged), (2, 2));
        assert_eq!(told.record.beginning.what, "site.yml (built in)");
        assert_eq!(told.record.began_unix_ms, 1_700_000_000_000);
        assert_eq!((told.record.outcome, told.record.check), (Outcome::Died, true));
    }
}
