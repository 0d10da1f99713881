//! From a tree of YAML to plays.

use super::keys;
use super::program::Program;
use super::task::Reader;
use super::types::{Inherited, Order, Play, Playbook, Text, WaveSize};
use super::value::Notes;
use crate::yaml::{Entry, Finding, Mark, Node, Value};

/// A file that a playbook names.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its name as it is shown to a person.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Where files of the playbook's directory come from.
pub trait Source {
    /// The file `path`, relative to the playbook's directory; an error says why not.
    fn file(&self, path: &str) -> Result<SourceFile, String>;
}

/// Reads the playbook `file` and everything that it imports; finds all that is wrong.
pub fn parse(file: &SourceFile, source: &dyn Source) -> Result<Playbook, Vec<Finding>> {
    let mut reader = Reader::new(source);
    let (document, findings) = crate::yaml::parse_partial(&file.name, &file.text);
    reader.notes.findings.extend(findings);
    let Some(document) = document else { return Err(reader.notes.findings) };
    let plays = match &document.root().value {
        Value::Seq(items) => items.iter().map(|item| play(&mut reader, item)).collect(),
        Value::Null => {
            reader.notes.add(Mark::new(file.name.as_str(), 1, 1).finding("the playbook is empty"));
            Vec::new()
        }
        _ => {
            let root = document.root();
            reader.notes.add(
                root.finding(format!("a playbook is a list of plays, found {}", root.kind()))
                    .hint("begin with `- name: …` and `hosts: …`"),
            );
            Vec::new()
        }
    };
    let findings = reader.notes.findings;
    if findings.is_empty() {
        Ok(Playbook { file: file.name.clone(), plays })
    } else {
        Err(findings)
    }
}

fn play(reader: &mut Reader<'_>, node: &Node) -> Play {
    let mut play = Play {
        mark: node.mark.clone(),
        name: String::new(),
        hosts: Text { text: String::new(), mark: node.mark.clone() },
        order: Order::default(),
        serial: Vec::new(),
        any_errors_fatal: false,
        max_fail_percentage: None,
        gather_facts: true,
        vars_files: Vec::new(),
        inherited: Inherited::default(),
        sections: Default::default(),
        handlers: Vec::new(),
    };
    for entry in reader.notes.map(node, "a play") {
        keyword(reader, &mut play, entry);
    }
    if play.hosts.text.trim().is_empty() {
        reader.notes.add(node.finding("the play does not say which `hosts` it is for"));
    }
    check_notifications(&mut reader.notes, &play);
    if play.name.is_empty() {
        play.name.clone_from(&play.hosts.text);
    }
    play
}

/// A notification that no handler answers to would be lost without a word.
fn check_notifications(notes: &mut Notes, play: &Play) {
    let names = || {
        play.handlers
            .iter()
            .flat_map(|handler| std::iter::once(&handler.name).chain(&handler.listen))
            .map(String::as_str)
    };
    let program = Program::of(play);
    let tasks = program.tasks().map(|step| &step.task).chain(&play.handlers);
    for task in tasks {
        for name in task.notify.iter().filter(|name| !names().any(|known| known == *name)) {
            let finding = task.mark.finding(format!("no handler of the play is called `{name}`"));
            notes.add(match crate::yaml::did_you_mean(name, names()) {
                Some(near) => finding.hint(format!("did you mean `{near}`?")),
                None => finding,
            });
        }
    }
}

fn keyword(reader: &mut Reader<'_>, play: &mut Play, entry: &Entry) {
    let value = &entry.value;
    match &*entry.key {
        "name" => play.name = reader.notes.text("name", value).text,
        "hosts" => {
            let texts = reader.notes.texts(entry);
            let mark = value.mark.clone();
            let joined = texts.into_iter().map(|text| text.text).collect::<Vec<_>>().join(":");
            play.hosts = Text { text: joined, mark };
        }
        "serial" => play.serial = serial(&mut reader.notes, entry),
        "order" => play.order = order(&mut reader.notes, value),
        "gather_facts" => play.gather_facts = reader.notes.bool(entry),
        "any_errors_fatal" => play.any_errors_fatal = reader.notes.bool(entry),
        "max_fail_percentage" => play.max_fail_percentage = percentage(&mut reader.notes, entry),
        "vars_files" => play.vars_files = reader.notes.texts(entry),
        "strategy" => strategy(&mut reader.notes, value),
        "pre_tasks" => play.sections[0] = reader.items(value, "pre_tasks"),
        "tasks" => play.sections[1] = reader.items(value, "tasks"),
        "post_tasks" => play.sections[2] = reader.items(value, "post_tasks"),
        "handlers" => play.handlers = reader.handlers(value),
        key if keys::PLAY.contains(&key) => reader.inherited(&mut play.inherited, entry),
        key => reader.refuse(entry, "keyword of a play", key, keys::PLAY),
    }
}

fn strategy(notes: &mut Notes, value: &Node) {
    if value.as_str() != Some("linear") {
        notes.add(value.finding("the only strategy is `linear`"));
    }
}

fn order(notes: &mut Notes, value: &Node) -> Order {
    match value.as_str() {
        Some("inventory") => Order::Inventory,
        Some("rolling") => Order::Rolling,
        _ => {
            notes.add(value.finding("`order` is `inventory`, or `rolling` for servers one by one"));
            Order::Inventory
        }
    }
}

fn percentage(notes: &mut Notes, entry: &Entry) -> Option<f64> {
    let percent = match &entry.value.value {
        #[expect(clippy::cast_precision_loss, reason = "only 0 to 100 is accepted below")]
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::String(text) => text.trim().trim_end_matches('%').parse().ok(),
        _ => None,
    };
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    if percent.is_none() {
        notes.add(entry.value.finding(format!("`{}` must be 0 to 100", entry.key)));
    }
    percent
}

fn serial(notes: &mut Notes, entry: &Entry) -> Vec<WaveSize> {
    let one = std::slice::from_ref(&entry.value);
    let items = entry.value.as_seq().unwrap_or(one);
    let mut sizes = Vec::new();
    for node in items {
        let size = match &node.value {
            Value::Int(value) => {
                usize::try_from(*value).ok().filter(|size| *size > 0).map(WaveSize::Hosts)
            }
            Value::String(text) => match text.strip_suffix('%') {
                Some(percent) => percent
                    .trim()
                    .parse()
                    .ok()
                    .filter(|percent| *percent > 0.0 && *percent <= 100.0)
                    .map(WaveSize::Percent),
                None => text.parse().ok().filter(|size| *size > 0).map(WaveSize::Hosts),
            },
            _ => None,
        };
        match size {
            Some(size) => sizes.push(size),
            None => notes.add(node.finding(
                "`serial` must be a number of hosts above 0, a percentage like \"30%\", or a list \
                 of them",
            )),
        }
    }
    sizes
}
