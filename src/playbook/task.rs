//! From a tree of YAML to tasks and blocks.

use serde_json::{Map, Value as Json};

use super::keys;
use super::parse::Source;
use super::types::{Block, Inherited, Item, Loop, Task};
use super::value::Notes;
use crate::modules::{self, Spec};
use crate::yaml::{Entry, Node, Value};

/// How deep files may import each other.
const IMPORT_DEPTH_MAX: usize = 16;

/// Tries when `until` is given and `retries` is not: Ansible's default.
const RETRIES_DEFAULT: u32 = 3;

/// Seconds between tries: Ansible's default.
const DELAY_SECONDS_DEFAULT: u32 = 5;

/// Reads tasks; keeps what is wrong and which files it is in.
pub(super) struct Reader<'a> {
    pub(super) notes: Notes,
    source: &'a dyn Source,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn Source) -> Self {
        Self { notes: Notes::default(), source, depth: 0 }
    }

    /// A list of tasks and blocks.
    pub(super) fn items(&mut self, node: &Node, what: &str) -> Vec<Item> {
        let nodes = self.notes.seq(node, &format!("`{what}`"));
        nodes.iter().filter_map(|node| self.item(node)).collect()
    }

    /// A list of handlers: tasks only.
    pub(super) fn handlers(&mut self, node: &Node) -> Vec<Task> {
        let mut handlers = Vec::new();
        for item in self.items(node, "handlers") {
            flatten_handlers(item, &Inherited::default(), &mut self.notes, &mut handlers);
        }
        handlers
    }

    /// Notes a key that is not known here.
    pub(super) fn refuse(&mut self, entry: &Entry, what: &str, key: &str, known: &[&str]) {
        if let Some((_, instead)) = keys::REFUSED.iter().find(|(name, _)| *name == key) {
            self.notes
                .add(entry.key_mark.finding(format!("`{key}` is not supported")).hint(*instead));
        } else {
            self.notes.unknown_key(entry, what, known.iter().copied());
        }
    }

    fn item(&mut self, node: &Node) -> Option<Item> {
        if node.as_map().is_none() {
            let kind = node.kind();
            self.notes.add(node.finding(format!("a task must be a mapping, found {kind}")));
            return None;
        }
        if node.get("block").is_some() {
            return Some(Item::Block(Box::new(self.block(node))));
        }
        let task = self.task(node)?;
        if matches!(task.module.name, "import_tasks" | "include_tasks") {
            return self.import(task).map(|block| Item::Block(Box::new(block)));
        }
        Some(Item::Task(Box::new(task)))
    }

    fn block(&mut self, node: &Node) -> Block {
        let mut block = Block {
            mark: node.mark.clone(),
            inherited: Inherited::default(),
            body: Vec::new(),
            rescue: Vec::new(),
            always: Vec::new(),
        };
        for entry in self.notes.map(node, "a block") {
            match &*entry.key {
                "name" => {
                    self.notes.text("name", &entry.value);
                }
                "block" => block.body = self.items(&entry.value, "block"),
                "rescue" => block.rescue = self.items(&entry.value, "rescue"),
                "always" => block.always = self.items(&entry.value, "always"),
                key if keys::INHERITED.contains(&key) => {
                    self.inherited(&mut block.inherited, entry);
                }
                key => {
                    let known: Vec<_> = [keys::BLOCK, keys::INHERITED].concat();
                    self.refuse(entry, "keyword of a block", key, &known);
                }
            }
        }
        block
    }

    /// The file that an import names, as a block with the import's keywords.
    fn import(&mut self, task: Task) -> Option<Block> {
        if task.loop_.is_some() || task.register.is_some() {
            self.notes.add(
                task.mark.finding(format!("`{}` has neither loop nor register", task.module.name)),
            );
        }
        let path = task.args.get("file").and_then(Json::as_str).unwrap_or_default();
        if path.contains("{{") {
            self.notes
                .add(task.mark.finding("the name of an imported file must not be a template"));
            return None;
        }
        if self.depth >= IMPORT_DEPTH_MAX {
            self.notes.add(
                task.mark
                    .finding(format!("files import each other more than {IMPORT_DEPTH_MAX} deep")),
            );
            return None;
        }
        let file = match self.source.file(path) {
            Ok(file) => file,
            Err(why) => {
                self.notes.add(task.mark.finding(format!("cannot import `{path}`: {why}")));
                return None;
            }
        };
        let (document, findings) = crate::yaml::parse_partial(&file.name, &file.text);
        self.notes.findings.extend(findings);
        let document = document?;
        self.depth += 1;
        let body = self.items(document.root(), path);
        self.depth -= 1;
        Some(Block {
            mark: task.mark,
            inherited: task.inherited,
            body,
            rescue: Vec::new(),
            always: Vec::new(),
        })
    }

    fn task(&mut self, node: &Node) -> Option<Task> {
        let entries = self.notes.map(node, "a task");
        let uses: Vec<&Entry> = entries.iter().filter(|entry| is_module_key(&entry.key)).collect();
        let (module, entry) = match uses.as_slice() {
            [entry] => (self.module(entry)?, *entry),
            [] => {
                self.no_module(node, entries);
                return None;
            }
            [first, second, ..] => {
                let message =
                    format!("two modules in one task: `{}` and `{}`", first.key, second.key);
                self.notes.add(second.key_mark.finding(message));
                return None;
            }
        };
        let mut task = Task {
            mark: node.mark.clone(),
            name: module.name.to_owned(),
            module,
            args: Map::new(),
            inherited: Inherited::default(),
            register: None,
            loop_: None,
            notify: Vec::new(),
            listen: Vec::new(),
            retries: None,
            delay_seconds: DELAY_SECONDS_DEFAULT,
            until: Vec::new(),
            changed_when: None,
            failed_when: None,
        };
        self.args(&mut task, entry, node.get("args"));
        for entry in entries.iter().filter(|entry| !is_module_key(&entry.key)) {
            self.task_keyword(&mut task, node, entry);
        }
        if !task.until.is_empty() && task.retries.is_none() {
            task.retries = Some(RETRIES_DEFAULT);
        }
        Some(task)
    }

    fn task_keyword(&mut self, task: &mut Task, node: &Node, entry: &Entry) {
        match &*entry.key {
            "name" => task.name = self.notes.text("name", &entry.value).text,
            "register" => task.register = Some(self.notes.name(entry)),
            "loop" | "with_items" => {
                let control = node.get("loop_control");
                task.loop_ = Some(self.loop_(entry, control));
            }
            "loop_control" if node.get("loop").or(node.get("with_items")).is_none() => {
                self.notes.add(entry.key_mark.finding("`loop_control` without a loop"));
            }
            "loop_control" | "args" => {}
            "notify" => task.notify = self.notes.names(entry),
            "listen" => task.listen = self.notes.names(entry),
            "retries" => task.retries = Some(self.notes.number(entry)),
            "delay" => task.delay_seconds = self.notes.number(entry),
            "until" => task.until = self.notes.expressions(entry),
            "changed_when" => task.changed_when = Some(self.notes.expressions(entry)),
            "failed_when" => task.failed_when = Some(self.notes.expressions(entry)),
            key if keys::INHERITED.contains(&key) => self.inherited(&mut task.inherited, entry),
            key => {
                let known: Vec<_> = [keys::TASK, keys::INHERITED].concat();
                self.refuse(entry, "keyword of a task", key, &known);
            }
        }
    }

    /// One of the keywords that plays, blocks and tasks share.
    pub(super) fn inherited(&mut self, into: &mut Inherited, entry: &Entry) {
        let notes = &mut self.notes;
        match &*entry.key {
            "when" => into.when = notes.expressions(entry),
            "vars" => into.vars = notes.vars(entry),
            "environment" => into.environment = notes.vars(entry),
            "tags" => into.tags = notes.names(entry),
            "become" => into.become_ = Some(notes.bool(entry)),
            "become_user" => into.become_user = Some(notes.text("become_user", &entry.value)),
            "ignore_errors" => into.ignore_errors = Some(notes.bool(entry)),
            "no_log" => into.no_log = Some(notes.bool(entry)),
            "check_mode" => into.check_mode = Some(notes.bool(entry)),
            "run_once" => into.run_once = Some(notes.bool(entry)),
            "delegate_to" => into.delegate_to = Some(notes.text("delegate_to", &entry.value)),
            "any_errors_fatal" => into.any_errors_fatal = Some(notes.bool(entry)),
            _ => {}
        }
    }

    fn loop_(&mut self, entry: &Entry, control: Option<&Node>) -> Loop {
        if !matches!(entry.value.value, Value::Seq(_) | Value::String(_)) {
            self.notes
                .add(entry.value.finding(format!("`{}` must be a list or a template", entry.key)));
        }
        self.notes.templates(&entry.value);
        let mut result = Loop {
            items: entry.value.to_json(),
            flatten: &*entry.key == "with_items",
            variable: "item".to_owned(),
            index_variable: None,
            label: None,
        };
        let Some(control) = control else { return result };
        for entry in self.notes.map(control, "`loop_control`") {
            match &*entry.key {
                "loop_var" => result.variable = self.notes.name(entry),
                "index_var" => result.index_variable = Some(self.notes.name(entry)),
                "label" => result.label = Some(self.notes.text("label", &entry.value)),
                key => self.refuse(entry, "keyword of loop_control", key, keys::LOOP_CONTROL),
            }
        }
        result
    }

    fn module(&mut self, entry: &Entry) -> Option<&'static Spec> {
        let found = modules::find(&entry.key);
        if found.is_none() {
            self.notes.unknown_key(entry, "module", modules::names());
        }
        found
    }

    /// No key is a module: most likely one is misspelt, or a keyword is.
    fn no_module(&mut self, node: &Node, entries: &[Entry]) {
        let unknown = entries.iter().find(|entry| !is_keyword(&entry.key));
        match unknown {
            None => self.notes.add(node.finding("the task names no module")),
            Some(entry) if keys::REFUSED.iter().any(|(name, _)| *name == &*entry.key) => {
                self.refuse(entry, "", &entry.key, &[]);
            }
            Some(entry) => {
                let known: Vec<&str> = modules::names()
                    .chain(keys::TASK.iter().chain(keys::INHERITED).copied())
                    .collect();
                let finding =
                    entry.key_mark.finding(format!("unknown module or keyword `{}`", entry.key));
                self.notes.add(match crate::yaml::did_you_mean(&entry.key, known) {
                    Some(near) => finding.hint(format!("did you mean `{near}`?")),
                    None => finding.hint(format!(
                        "modules: {}",
                        modules::names().collect::<Vec<_>>().join(", ")
                    )),
                });
            }
        }
    }

    /// The module's arguments: a mapping, or its one free-form argument with `args` beside it.
    fn args(&mut self, task: &mut Task, entry: &Entry, beside: Option<&Node>) {
        let spec = task.module;
        match (&entry.value.value, spec.free_form) {
            (Value::Map(entries), _) => self.args_from(task, entries),
            (Value::Null, _) => {}
            (Value::String(_) | Value::Int(_), Some(key)) => {
                let text = self.notes.text(&entry.key, &entry.value).text;
                task.args.insert(key.to_owned(), Json::String(text));
            }
            _ => self.notes.add(entry.value.finding(format!(
                "the arguments of `{}` must be a mapping, found {}",
                entry.key,
                entry.value.kind()
            ))),
        }
        if let Some(beside) = beside {
            let entries = self.notes.map(beside, "`args`");
            self.args_from(task, entries);
        }
        for key in spec.required {
            let choices: Vec<&str> = key.split('|').collect();
            if !choices.iter().any(|key| task.args.contains_key(*key)) {
                self.notes.add(entry.key_mark.finding(format!(
                    "`{}` needs `{}`",
                    entry.key,
                    choices.join("` or `")
                )));
            }
        }
    }

    fn args_from(&mut self, task: &mut Task, entries: &[Entry]) {
        let spec = task.module;
        for entry in entries {
            if spec.any_key {
                task.args.extend(self.notes.vars(&Entry {
                    value: Node {
                        value: Value::Map(vec![entry.clone()]),
                        mark: entry.key_mark.clone(),
                    },
                    ..entry.clone()
                }));
            } else if spec.keys.contains(&&*entry.key) {
                if spec.expressions.contains(&&*entry.key) {
                    self.notes.conditions(&entry.value);
                } else {
                    self.notes.templates(&entry.value);
                }
                task.args.insert(entry.key.to_string(), entry.value.to_json());
            } else {
                let what = format!("argument of {}", spec.name);
                self.notes.unknown_key(entry, &what, spec.keys.iter().copied());
            }
        }
    }
}

fn is_keyword(key: &str) -> bool {
    keys::TASK.contains(&key) || keys::INHERITED.contains(&key)
}

/// A module's name; anything with a dot is meant as one.
fn is_module_key(key: &str) -> bool {
    modules::find(key).is_some() || (key.contains('.') && !is_keyword(key))
}

/// Handlers are a flat list; an imported file of them is opened.
fn flatten_handlers(item: Item, outer: &Inherited, notes: &mut Notes, into: &mut Vec<Task>) {
    match item {
        Item::Task(mut task) => {
            task.inherited = outer.under(&task.inherited);
            into.push(*task);
        }
        Item::Block(block) if block.rescue.is_empty() && block.always.is_empty() => {
            let inherited = outer.under(&block.inherited);
            for item in block.body {
                flatten_handlers(item, &inherited, notes, into);
            }
        }
        Item::Block(block) => {
            notes.add(block.mark.finding("a handler has neither rescue nor always"));
        }
    }
}
