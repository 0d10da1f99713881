//! The part of systemd's unit files that a lab host follows.
//!
//! `Type` (simple, exec, notify), `ExecStart`, `ExecReload` (of which `$MAINPID` is known), `Environment`, `EnvironmentFile`, `WorkingDirectory`,
//! `Restart`, `RestartSec`, `TimeoutStopSec`, and `AssertPathExists` in `[Unit]`, also from drop-ins. Everything else (hardening, ordering) is systemd's
//! business and has no effect in a lab (systemd.service(5)).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LabError;

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Restart {
    #[default]
    No,
    OnFailure,
    Always,
}

/// What a unit file says about its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) argv: Vec<String>,
    /// What makes it read its configuration again; empty when nothing does.
    pub(super) reload: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) working_directory: Option<String>,
    /// It says itself when it is ready.
    pub(super) notify: bool,
    pub(super) restart: Restart,
    pub(super) restart_delay: Duration,
    pub(super) stop_timeout: Duration,
}

/// Reads and parses a unit file, and the environment files it names.
pub(super) fn read(path: &Path) -> Result<Unit, LabError> {
    let text = fs::read_to_string(path).map_err(LabError::io(path))?;
    let mut drop_in = path.as_os_str().to_owned();
    drop_in.push(".d");
    let mut files = vec![(path.to_owned(), text.clone())];
    for file in conf_files(Path::new(&drop_in))? {
        let text = fs::read_to_string(&file).map_err(LabError::io(&file))?;
        files.push((file, text));
    }
    for (file, text) in &files {
        assert_paths(file, text)?;
    }
    parse(path, &text)
}

/// The drop-ins of a unit, by name. Of what they say only assertions are followed.
fn conf_files(dir: &Path) -> Result<Vec<PathBuf>, LabError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(LabError::io(dir))?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let is_conf = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "conf");
    let mut files: Vec<PathBuf> = paths.filter(is_conf).collect();
    files.sort();
    Ok(files)
}

/// Fails when an `AssertPathExists=` does not hold: then a unit is not started.
fn assert_paths(file: &Path, text: &str) -> Result<(), LabError> {
    for (line, content) in logical_lines(text) {
        let Some(value) = content.strip_prefix("AssertPathExists=") else { continue };
        let (path, wanted) = value.strip_prefix('!').map_or((value, true), |path| (path, false));
        if Path::new(path).exists() != wanted {
            let reason = format!("Assertion failed: {content}");
            return Err(LabError::Unit { path: file.to_owned(), line, reason });
        }
    }
    Ok(())
}

fn parse(path: &Path, text: &str) -> Result<Unit, LabError> {
    let mut unit = Unit {
        argv: Vec::new(),
        reload: Vec::new(),
        environment: Vec::new(),
        working_directory: None,
        notify: false,
        restart: Restart::No,
        restart_delay: Duration::from_millis(100),
        stop_timeout: Duration::from_secs(30),
    };
    let mut section = String::new();
    for (line, content) in logical_lines(text) {
        let wrong = |reason: String| LabError::Unit { path: path.to_owned(), line, reason };
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let Some((key, value)) = content.split_once('=') else {
            return Err(wrong(format!("expected `Key=value`, found {content:?}")));
        };
        if section == "Service" {
            set(&mut unit, key.trim(), value.trim()).map_err(wrong)?;
        }
    }
    if unit.argv.is_empty() {
        let reason = "no ExecStart= in [Service]".to_owned();
        return Err(LabError::Unit { path: path.to_owned(), line: 1, reason });
    }
    Ok(unit)
}

fn set(unit: &mut Unit, key: &str, value: &str) -> Result<(), String> {
    match key {
        "Type" => {
            unit.notify = match value {
                "notify" | "notify-reload" => true,
                "simple" | "exec" => false,
                _ => return Err(format!("a lab host does not know Type={value}")),
            }
        }
        "ExecStart" => unit.argv = words(value)?,
        "ExecReload" => unit.reload = words(value)?,
        "Environment" => {
            for word in words(value)? {
                unit.environment.extend(word.split_once('=').map(owned));
            }
        }
        "EnvironmentFile" => unit.environment.extend(environment_file(value)?),
        "WorkingDirectory" => unit.working_directory = Some(value.to_owned()),
        "Restart" => {
            unit.restart = match value {
                "no" => Restart::No,
                "on-failure" => Restart::OnFailure,
                "always" => Restart::Always,
                _ => return Err(format!("a lab host does not know Restart={value}")),
            }
        }
        "RestartSec" => unit.restart_delay = time_span(value)?,
        "TimeoutStopSec" => unit.stop_timeout = time_span(value)?,
        _ => {}
    }
    Ok(())
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn words(value: &str) -> Result<Vec<String>, String> {
    shell_words::split(value).map_err(|error| format!("{value:?}: {error}"))
}

/// A leading `-` means that a missing file is fine.
fn environment_file(value: &str) -> Result<Vec<(String, String)>, String> {
    let (path, optional) = value.strip_prefix('-').map_or((value, false), |path| (path, true));
    match fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
            let unquoted = |value: &str| match shell_words::split(value) {
                Ok(words) => words.join(" "),
                Err(_) => value.to_owned(),
            };
            let pairs = lines.filter_map(|line| line.split_once('='));
            Ok(pairs.map(|(key, value)| (key.trim().to_owned(), unquoted(value))).collect())
        }
        Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Seconds without a unit, else as people write them (systemd.time(7)).
fn time_span(value: &str) -> Result<Duration, String> {
    if let Ok(seconds) = value.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(value).map_err(|error| format!("{value:?} is no time span: {error}"))
}

/// Lines with their numbers; comments and blank lines left out, a trailing `\` joins the next line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut joined: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let (first, mut content) = joined.take().unwrap_or((number, String::new()));
        if let Some(part) = line.strip_suffix('\\') {
            content.push_str(part);
            content.push(' ');
            joined = Some((first, content));
            continue;
        }
        content.push_str(line);
        let content = content.trim();
        if !content.is_empty() {
            lines.push((first, content.to_owned()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "\
[Unit]
Description=A node
# a comment
[Service]
Type=notify
Environment=A=1 \"B=two words\"
ExecStart=/usr/local/bin/node \\
    server \\
    '--config' /etc/node.yaml
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=5s
ProtectSystem=strict

[Install]
WantedBy=multi-user.target
";

    #[test]
    fn the_keys_that_matter_are_read() {
        let unit = parse(Path::new("node.service"), UNIT).unwrap();
        assert_eq!(unit.argv, ["/usr/local/bin/node", "server", "--config", "/etc/node.yaml"]);
        assert_eq!(unit.reload, ["/bin/kill", "-HUP", "$MAINPID"]);
        let environment = [("A", "1"), ("B", "two words")].map(owned);
        assert_eq!(unit.environment, environment);
        assert!(unit.notify);
        assert_eq!((unit.restart, unit.restart_delay), (Restart::Always, Duration::from_secs(5)));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, expected) in [
            (
                "[Service]\nType=forking\nExecStart=/x",
                "node.service:2: a lab host does not know Type=forking",
            ),
            ("[Service]\nnonsense", "node.service:2: expected `Key=value`, found \"nonsense\""),
            (
                "[Service]\nExecStart=/x 'open",
                "node.service:2: \"/x 'open\": missing closing quote",
            ),
            (
                "[Service]\nRestartSec=soon",
                "node.service:2: \"soon\" is no time span: expected number at 0",
            ),
            ("[Unit]\n", "node.service:1: no ExecStart= in [Service]"),
        ] {
            assert_eq!(parse(Path::new("node.service"), text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_unit_whose_assertion_does_not_hold_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("node.service");
        fs::write(&unit, UNIT).unwrap();
        assert!(read(&unit).is_ok());
        let fence = dir.path().join("fence");
        let drop_in = dir.path().join("node.service.d");
        fs::create_dir(&drop_in).unwrap();
        let text = format!("[Unit]\nAssertPathExists=!{}\n", fence.display());
        fs::write(drop_in.join("fence.conf"), text).unwrap();
        assert!(read(&unit).is_ok());
        fs::write(&fence, "").unwrap();
        let refused = read(&unit).unwrap_err().to_string();
        assert!(
            refused.contains("fence.conf:2: Assertion failed: AssertPathExists=!"),
            "{refused}"
        );
    }

    #[test]
    fn time_spans_are_seconds_by_default() {
        assert_eq!(time_span("2"), Ok(Duration::from_secs(2)));
        assert_eq!(time_span("500ms"), Ok(Duration::from_millis(500)));
    }
}
