//! From events to a tree, with every limit checked on the way. Not recursive.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::finding::{Finding, Mark};
use super::node::{Entry, Node, Value};
use super::scalar;
use crate::limits::YAML_BYTES_MAX;

/// Deepest nesting of lists and mappings, aliases followed.
pub const DEPTH_MAX: usize = 64;

/// What anchors and aliases may copy in all: one per node and one per byte of text.
const COPY_WEIGHT_MAX: usize = 2 * YAML_BYTES_MAX;

/// A parsed text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    root: Node,
}

impl Document {
    /// The whole value; [`Value::Null`] for an empty text.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// A document of a tree that was read from another syntax.
    pub(crate) fn from_root(root: Node) -> Self {
        Self { root }
    }

    /// Takes the whole value out.
    pub fn into_root(self) -> Node {
        self.root
    }
}

/// Parses `bytes`, the content of `file_name` (used in findings only); refuses what is not UTF-8.
pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Document, Vec<Finding>> {
    parse(file_name, utf8(file_name, bytes)?)
}

/// Like [`parse_bytes`], for those who look on for what else is wrong; see [`parse_partial`].
pub fn parse_bytes_partial(file_name: &str, bytes: &[u8]) -> (Option<Document>, Vec<Finding>) {
    match utf8(file_name, bytes) {
        Ok(text) => parse_partial(file_name, text),
        Err(findings) => (None, findings),
    }
}

fn utf8<'a>(file_name: &str, bytes: &'a [u8]) -> Result<&'a str, Vec<Finding>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = good.split(|byte| *byte == b'\n').count();
        vec![Mark::new(file_name, line, 1).finding("not UTF-8 text")]
    })
}

/// Parses `text`, the content of `file_name` (used in findings only), into one document.
///
/// All duplicate keys are found at once; the first error of syntax or of a limit ends the parse.
pub fn parse(file_name: &str, text: &str) -> Result<Document, Vec<Finding>> {
    match parse_partial(file_name, text) {
        (Some(document), findings) if findings.is_empty() => Ok(document),
        (_, findings) => Err(findings),
    }
}

/// Like [`parse`], but gives the document also when keys are duplicate, with both values in it: so
/// that a reader may find what else is wrong. It must not be used for anything else when there are
/// findings.
pub fn parse_partial(file_name: &str, text: &str) -> (Option<Document>, Vec<Finding>) {
    let file: Arc<str> = file_name.into();
    let start = Mark { file: Arc::clone(&file), line: 1, column: 1 };
    if text.len() > YAML_BYTES_MAX {
        let message =
            format!("{} bytes are more than the {YAML_BYTES_MAX} that are accepted", text.len());
        return (None, vec![start.finding(message)]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { file, ..Builder::default() };
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(syntax_finding(&builder.file, &error)),
        };
        if let Err(finding) = step {
            builder.findings.push(finding);
            return (None, builder.findings);
        }
    }
    let root = builder.root.unwrap_or(Node { value: Value::Null, mark: start });
    (Some(Document { root }), builder.findings)
}

fn syntax_finding(file: &Arc<str>, error: &saphyr_parser::ScanError) -> Finding {
    let at = error.marker();
    Mark { file: Arc::clone(file), line: at.line().max(1), column: at.col() + 1 }
        .finding(error.info().to_owned())
}

/// A list or mapping that is not complete yet.
struct Frame {
    mark: Mark,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    Seq(Vec<Node>),
    Map(MapFrame),
}

#[derive(Default)]
struct MapFrame {
    entries: Vec<Entry>,
    seen: HashMap<Arc<str>, usize>,
    key: Option<(Arc<str>, Mark)>,
    merged: Vec<Node>,
}

/// The key that copies other mappings in (YAML 1.1 merge key).
const MERGE_KEY: &str = "<<";

#[derive(Default)]
struct Builder {
    file: Arc<str>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    root: Option<Node>,
    documents: usize,
    findings: Vec<Finding>,
}

impl Builder {
    fn mark(&self, span: &Span) -> Mark {
        Mark {
            file: Arc::clone(&self.file),
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        let mark = self.mark(&span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(mark.finding("a second document in one file"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if self.awaits_key() {
                    return self.key(&text, plain, mark);
                }
                let value = scalar_value(&text, plain, tag.as_deref(), &mark)?;
                self.complete(Node { value, mark }, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", &mark)?;
                self.push(mark, anchor, FrameKind::Seq(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "map", &mark)?;
                self.push(mark, anchor, FrameKind::Map(MapFrame::default()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.pop()?,
            Event::Alias(id) => self.alias(id, &mark)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        match self.stack.last().map(|frame| &frame.kind) {
            Some(FrameKind::Map(map)) => map.key.is_none(),
            _ => false,
        }
    }

    fn key(&mut self, text: &str, plain: bool, mark: Mark) -> Result<(), Finding> {
        let key: Arc<str> = text.into();
        let Some(Frame { kind: FrameKind::Map(map), .. }) = self.stack.last_mut() else {
            return Err(mark.finding("a key outside a mapping"));
        };
        if !(plain && text == MERGE_KEY)
            && let Some(first_line) = map.seen.insert(Arc::clone(&key), mark.line)
        {
            self.findings.push(
                mark.finding(format!("duplicate key `{text}`, first given on line {first_line}")),
            );
        }
        map.key = Some((key, mark));
        Ok(())
    }

    fn push(&mut self, mark: Mark, anchor: usize, kind: FrameKind) -> Result<(), Finding> {
        if self.awaits_key() {
            return Err(mark
                .finding("a list or mapping can not be a key")
                .hint("a value that begins with `{` or `[`, like `{{ … }}`, needs quotes"));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(mark.finding(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.stack.push(Frame { mark, anchor, kind });
        Ok(())
    }

    fn pop(&mut self) -> Result<(), Finding> {
        let Some(Frame { mark, anchor, kind }) = self.stack.pop() else {
            return Ok(());
        };
        let value = match kind {
            FrameKind::Seq(items) => Value::Seq(items),
            FrameKind::Map(map) => Value::Map(merge(map)?),
        };
        self.complete(Node { value, mark }, anchor)
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Finding> {
        if anchor > 0 {
            self.charge(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(FrameKind::Seq(items)) => items.push(node),
            Some(FrameKind::Map(map)) => match map.key.take() {
                Some((key, _)) if &*key == MERGE_KEY && !map.seen.contains_key(MERGE_KEY) => {
                    map.merged.push(node);
                }
                Some((key, key_mark)) => map.entries.push(Entry { key, key_mark, value: node }),
                None => return Err(node.finding("a value without a key")),
            },
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, mark: &Mark) -> Result<(), Finding> {
        if self.awaits_key() {
            return Err(mark.finding("an alias can not be a key"));
        }
        let Some(node) = self.anchors.get(&id) else {
            return Err(mark.finding("an alias inside its own anchor"));
        };
        // The copy keeps the marks of the original: that is where a person has to change it.
        let node = node.clone();
        self.charge(&node)?;
        if self.stack.len() + depth(&node) > DEPTH_MAX {
            return Err(mark.finding(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.complete(node, 0)
    }

    /// Counts a copy of `node` against what anchors and aliases may copy.
    fn charge(&mut self, node: &Node) -> Result<(), Finding> {
        self.copied += weight(node);
        if self.copied > COPY_WEIGHT_MAX {
            return Err(node.finding("anchors and aliases repeat too much"));
        }
        Ok(())
    }
}

fn scalar_value(text: &str, plain: bool, tag: Option<&Tag>, mark: &Mark) -> Result<Value, Finding> {
    let Some(tag) = tag else {
        return Ok(if plain { scalar::resolve(text) } else { Value::String(text.to_owned()) });
    };
    let resolved = scalar::resolve(text);
    match (tag.is_yaml_core_schema(), tag.suffix.as_str(), &resolved) {
        (true, "str", _) | (false, "", _) => Ok(Value::String(text.to_owned())),
        (true, "bool", Value::Bool(_))
        | (true, "int", Value::Int(_))
        | (true, "float", Value::Float(_))
        | (true, "null", Value::Null) => Ok(resolved),
        (true, "bool" | "int" | "float" | "null", _) => {
            Err(mark.finding(format!("the text is no `!!{}`", tag.suffix)))
        }
        _ => Err(unknown_tag(tag, mark)),
    }
}

fn collection_tag(tag: Option<&Tag>, suffix: &str, mark: &Mark) -> Result<(), Finding> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == suffix) => {
            Err(unknown_tag(tag, mark))
        }
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, mark: &Mark) -> Finding {
    let finding = mark.finding(format!("the tag `{tag}` is not supported"));
    match tag.suffix.as_str() {
        "vault" => finding.hint("keep the secret in a file of its own with mode 0600"),
        "unsafe" => finding.hint("write `{% raw %}…{% endraw %}` around text that is no template"),
        _ => finding,
    }
}

/// The entries with what `<<` brings behind them; a mapping's own keys win, then earlier merges.
fn merge(map: MapFrame) -> Result<Vec<Entry>, Finding> {
    let MapFrame { mut entries, mut seen, merged, .. } = map;
    let sources = merged.into_iter().flat_map(|node| match node.value {
        Value::Seq(items) => items,
        _ => vec![node],
    });
    for source in sources {
        let Value::Map(new) = source.value else {
            return Err(source.finding(format!(
                "`<<` takes a mapping or a list of mappings, found {}",
                source.kind()
            )));
        };
        for entry in new {
            if seen.insert(Arc::clone(&entry.key), entry.key_mark.line).is_none() {
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

/// One per node and one per byte of text. Recursion is bounded by [`DEPTH_MAX`].
fn weight(node: &Node) -> usize {
    match &node.value {
        Value::String(text) => 1 + text.len(),
        Value::Seq(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Map(entries) => {
            1 + entries.iter().map(|e| 1 + e.key.len() + weight(&e.value)).sum::<usize>()
        }
        _ => 1,
    }
}

/// Levels of lists and mappings, the node's own included.
fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|e| depth(&e.value)).max().unwrap_or(0),
        _ => 0,
    }
}
