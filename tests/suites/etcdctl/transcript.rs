//! Plays a list of commands through `etcdctl` and notes what it printed, without what must differ
//! between two clusters.

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use regex::{Captures, Regex};

use crate::support::etcd::{Ctl, text};

/// No command takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command of the list, and what it printed.
pub(crate) type Step = (String, String);

/// Plays `script`; its form is described at its beginning.
pub(crate) fn play(ctl: &Ctl, script: &str) -> Vec<Step> {
    let revision = ctl.json(&["get", "nothing"])["header"]["revision"].as_i64();
    let mut player = Player { ctl, revision: revision.expect("a revision"), lease: String::new() };
    let lines = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| (line.to_owned(), player.step(line))).collect()
}

struct Player<'a> {
    ctl: &'a Ctl,
    revision: i64,
    lease: String,
}

impl Player<'_> {
    fn step(&mut self, line: &str) -> String {
        let (until, line) = match line.strip_prefix('~').and_then(|rest| rest.split_once(' ')) {
            Some((until, line)) => (Some(until), line),
            None => (None, line),
        };
        let (command, input) = line.split_once(" << ").unwrap_or((line, ""));
        let words = shell_words::split(&self.filled(command)).expect("words");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let input = self.filled(input).replace("\\n", "\n");
        let printed = run(self.ctl, &words, &input, until);
        if let Some((_, rest)) = printed.split_once("lease ")
            && let Some((lease, _)) = rest.split_once(" granted with")
        {
            lease.clone_into(&mut self.lease);
        }
        self.normal(&printed)
    }

    fn filled(&self, text: &str) -> String {
        let revision = Regex::new(r"\{rev(?:\+(\d+))?\}").expect("a pattern");
        let later = |found: &Captures<'_>| {
            let more = found.get(1).map_or(0, |more| more.as_str().parse().expect("a number"));
            (self.revision + more).to_string()
        };
        revision.replace_all(text, later).replace("{lease}", &self.lease)
    }

    /// What was printed, without numbers of clusters and leases, times, and the place in etcdctl's
    /// own source that its log names.
    fn normal(&self, printed: &str) -> String {
        let error = Regex::new(r#""error":"((?:[^"\\]|\\.)*)""#).expect("a pattern");
        let mut lines: Vec<String> = printed
            .lines()
            .map(|line| {
                if line.starts_with("{\"level\":") {
                    error.captures(line).map_or_else(String::new, |found| found[1].to_owned())
                } else {
                    line.to_owned()
                }
            })
            .collect();
        // A call that is tried again is logged again.
        lines.dedup();
        let mut text = lines.join("\n").replace(&self.ctl.endpoints, "ENDPOINT");
        if let Some((_, address)) = self.ctl.endpoints.split_once("//") {
            text = text.replace(address, "ENDPOINT");
            if let Some((host, _)) = address.split_once(':') {
                text = text.replace(host, "HOST");
            }
        }
        for (pattern, instead) in [
            (r#""(cluster_id|member_id|raft_term|ID|id|lease|ttl)":-?\d+"#, r#""$1":N"#),
            (
                r#""((?:Prev)?Lease|(?:Cluster|Member|)ID|Raft\w+|Leader|TTL|DBSize|Hash)" : -?\d+"#,
                r#""$1" : N"#,
            ),
            (r#""Took" : \S+"#, r#""Took" : T"#),
            (r#"(ENDPOINT, |"hash":)\d+"#, "${1}N"),
            (r"remaining\(\d+s\)", "remaining(N)"),
            (r"\b[0-9a-f]{14,16}\b", "ID"),
            (r"took = \S+", "took = T"),
        ] {
            text = Regex::new(pattern).expect("a pattern").replace_all(&text, instead).into_owned();
        }
        text
    }
}

/// Runs a command with `input` to its end, or until a line with the word `until` was printed.
fn run(ctl: &Ctl, words: &[&str], input: &str, until: Option<&str>) -> String {
    let mut command = ctl.command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(if until.is_some() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.spawn().expect("etcdctl runs");
    let mut stdin = child.stdin.take().expect("its input");
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes());
    let Some(until) = until else {
        drop(stdin);
        let output = child.wait_with_output().expect("its output");
        return format!("{}\n-> {:?}", text(&output), output.status.code());
    };
    let mut stdout = child.stdout.take().expect("its output");
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            let _ = sender.send(buffer.get(..count).unwrap_or_default().to_vec());
        }
    });
    let mut printed = Vec::new();
    let end = loop {
        let text = String::from_utf8_lossy(&printed);
        let end = text.find(until).and_then(|at| text[at..].find('\n').map(|more| at + more));
        if end.is_some() {
            break end;
        }
        match receiver.recv_timeout(PATIENCE) {
            Ok(more) => printed.extend(more),
            Err(_) => break None,
        }
    };
    child.kill().expect("it is ended");
    child.wait().expect("it has ended");
    reader.join().expect("its output was read");
    let text = String::from_utf8_lossy(&printed).into_owned();
    match end {
        Some(end) => text[..end].to_owned(),
        None => format!("{text}\n{until} was never printed"),
    }
}
