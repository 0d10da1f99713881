//! Reading keywords' values: what fits is taken, what does not is a finding.

use serde_json::{Map, Value as Json};

use super::types::Text;
use crate::template::{Engine, TemplateError};
use crate::yaml::{Entry, Finding, Mark, Node, Value, did_you_mean};

/// Findings so far; a reader notes one and goes on with a harmless value, so that a person sees
/// all of them at once.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) findings: Vec<Finding>,
    engine: Engine,
}

impl Notes {
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes the texts in `node` that are no well-formed templates.
    pub(super) fn templates(&mut self, node: &Node) {
        match &node.value {
            Value::String(text) => self.template(text, &node.mark),
            Value::Seq(items) => items.iter().for_each(|item| self.templates(item)),
            Value::Map(entries) => entries.iter().for_each(|entry| self.templates(&entry.value)),
            _ => {}
        }
    }

    /// Notes the texts in `node` that are no well-formed conditions.
    pub(super) fn conditions(&mut self, node: &Node) {
        match &node.value {
            Value::String(text) => self.condition(text, &node.mark),
            Value::Seq(items) => items.iter().for_each(|item| self.conditions(item)),
            _ => {}
        }
    }

    fn template(&mut self, text: &str, mark: &Mark) {
        if let Err(error) = self.engine.check_text(text) {
            self.add(malformed("template", text, mark, &error));
        }
    }

    fn condition(&mut self, text: &str, mark: &Mark) {
        if let Err(error) = self.engine.check_condition(text) {
            self.add(malformed("condition", text, mark, &error));
        }
    }

    /// Notes an unknown key, with the nearest of `known`.
    pub(super) fn unknown_key<'a>(
        &mut self,
        entry: &Entry,
        what: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) {
        let finding = entry.key_mark.finding(format!("unknown {what} `{}`", entry.key));
        self.add(match did_you_mean(&entry.key, known.clone()) {
            Some(near) => finding.hint(format!("did you mean `{near}`?")),
            None => {
                finding.hint(format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", ")))
            }
        });
    }

    pub(super) fn map<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Entry] {
        node.expect_map(what).unwrap_or_else(|finding| {
            self.add(finding);
            &[]
        })
    }

    pub(super) fn seq<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        match &node.value {
            Value::Seq(items) => items,
            Value::Null => &[],
            _ => {
                self.add(node.finding(format!("{what} must be a list, found {}", node.kind())));
                &[]
            }
        }
    }

    pub(super) fn bool(&mut self, entry: &Entry) -> bool {
        if let Value::Bool(value) = entry.value.value {
            return value;
        }
        let mut finding = entry.value.finding(format!(
            "`{}` must be yes or no, found {}",
            entry.key,
            entry.value.kind()
        ));
        if entry.value.as_str().is_some_and(|text| text.contains("{{")) {
            finding = finding.hint("a template is not possible here; use `when`");
        }
        self.add(finding);
        false
    }

    pub(super) fn number<T: TryFrom<i64> + Default>(&mut self, entry: &Entry) -> T {
        let number = match entry.value.value {
            Value::Int(value) => T::try_from(value).ok(),
            _ => None,
        };
        number.unwrap_or_else(|| {
            self.add(entry.value.finding(format!(
                "`{}` must be a whole number, not below 0, found {}",
                entry.key,
                entry.value.kind()
            )));
            T::default()
        })
    }

    /// A string; numbers are taken as their text.
    pub(super) fn text(&mut self, what: &str, node: &Node) -> Text {
        let text = match &node.value {
            Value::String(text) => text.clone(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            _ => {
                self.add(node.finding(format!("`{what}` must be text, found {}", node.kind())));
                String::new()
            }
        };
        self.template(&text, &node.mark);
        Text { text, mark: node.mark.clone() }
    }

    /// One string or a list of them.
    pub(super) fn texts(&mut self, entry: &Entry) -> Vec<Text> {
        match &entry.value.value {
            Value::Seq(items) => items.iter().map(|item| self.text(&entry.key, item)).collect(),
            Value::Null => Vec::new(),
            _ => vec![self.text(&entry.key, &entry.value)],
        }
    }

    /// Like [`Notes::texts`], for names: a comma divides them, too.
    pub(super) fn names(&mut self, entry: &Entry) -> Vec<String> {
        self.texts(entry)
            .iter()
            .flat_map(|text| text.text.split(',').map(str::trim))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Expressions: one or a list; `yes` and `no` are expressions, too.
    pub(super) fn expressions(&mut self, entry: &Entry) -> Vec<Text> {
        let one = |notes: &mut Self, node: &Node| match &node.value {
            Value::Bool(value) => Text { text: value.to_string(), mark: node.mark.clone() },
            Value::String(text) => Text { text: text.clone(), mark: node.mark.clone() },
            _ => notes.text(&entry.key, node),
        };
        let texts: Vec<Text> = match &entry.value.value {
            Value::Seq(items) => items.iter().map(|item| one(self, item)).collect(),
            Value::Null => Vec::new(),
            _ => vec![one(self, &entry.value)],
        };
        for text in &texts {
            if text.text.contains("{{") || text.text.contains("{%") {
                self.add(text.mark.finding(format!(
                    "`{}` is an expression already: leave the braces out",
                    entry.key
                )));
            } else {
                self.condition(&text.text, &text.mark);
            }
        }
        texts
    }

    /// A mapping of variables; names must be names.
    pub(super) fn vars(&mut self, entry: &Entry) -> Map<String, Json> {
        let mut vars = Map::new();
        for each in self.map(&entry.value, &format!("`{}`", entry.key)) {
            if is_name(&each.key) {
                self.templates(&each.value);
                vars.insert(each.key.to_string(), each.value.to_json());
            } else {
                self.add(each.key_mark.finding(format!(
                    "`{}` is not a variable's name: letters, digits and _ only, no digit first",
                    each.key
                )));
            }
        }
        vars
    }

    /// A variable's name.
    pub(super) fn name(&mut self, entry: &Entry) -> String {
        let text = self.text(&entry.key, &entry.value);
        if !text.text.is_empty() && !is_name(&text.text) {
            self.add(text.mark.finding(format!("`{}` is not a variable's name", text.text)));
        }
        text.text
    }
}

/// What is wrong with a template or condition, and in which line of a longer text.
fn malformed(what: &str, text: &str, mark: &Mark, error: &TemplateError) -> Finding {
    let line = error.line.filter(|_| text.trim_end().contains('\n'));
    let line = line.map(|line| format!(" (line {line} of the text)")).unwrap_or_default();
    mark.finding(format!("bad {what}: {error}{line}"))
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|each| each.is_ascii_alphanumeric() || each == '_')
}
