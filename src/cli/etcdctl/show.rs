//! How answers are printed: for people, or in one of the forms that programs read.

use std::fmt::{Display, Write as _};

use clap::ValueEnum;
use serde_json::Value as Json;

use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::etcdserverpb::ResponseHeader;
use crate::rpc::pb::mvccpb::KeyValue;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shape {
    /// As etcdctl does by default
    Simple,
    /// A line for each field
    Fields,
    /// JSON in one line
    Json,
    /// The message of the API, as bytes
    Protobuf,
    /// A table, where there is one
    Table,
}

/// An answer in the forms that programs read.
pub(super) trait Answer {
    /// As etcdctl's JSON has it.
    fn json(&self) -> Json;

    /// Its fields, line by line.
    fn fields(&self, fields: &mut Fields);

    /// The message of the API; `None` when it is none.
    fn message(&self) -> Option<Vec<u8>> {
        None
    }

    /// Head and rows of its table; `None` when it has none.
    fn table(&self) -> Option<(Vec<&'static str>, Vec<Vec<String>>)> {
        None
    }
}

/// Prints answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    pub(super) shape: Shape,
    pub(super) hex: bool,
}

impl Show {
    /// Prints `answer` unless it is for people to read; says whether it did.
    pub(super) fn formal(self, answer: &impl Answer) -> Result<bool, Failure> {
        let unsupported = |name: &str| {
            Failure::new(ExitCode::BadInput, format!("{name} not supported as output format"))
        };
        match self.shape {
            Shape::Simple => return Ok(false),
            Shape::Json => output::line(&answer.json().to_string())?,
            Shape::Fields => {
                let mut fields = Fields::default();
                answer.fields(&mut fields);
                output::write_all(fields.text.as_bytes())?;
            }
            Shape::Protobuf => {
                let message = answer.message().ok_or_else(|| unsupported("protobuf"))?;
                output::write_all(&message)?;
            }
            Shape::Table => {
                let (head, rows) = answer.table().ok_or_else(|| unsupported("table"))?;
                output::boxed(&head, rows)?;
            }
        }
        Ok(true)
    }

    /// The bytes of a key or value.
    fn bytes(self, bytes: &[u8]) -> Vec<u8> {
        if self.hex {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            return hex.concat().into_bytes();
        }
        bytes.to_vec()
    }

    /// A line of it.
    pub(super) fn line(self, bytes: &[u8]) -> Result<(), Failure> {
        output::write_all(&[self.bytes(bytes), b"\n".to_vec()].concat())
    }

    /// Key and value, a line of each.
    pub(super) fn pair(self, pair: &KeyValue) -> Result<(), Failure> {
        self.line(&pair.key)?;
        self.line(&pair.value)
    }
}

/// Lines of `"Name" : value`. As in etcdctl 3.5 `--hex` changes nothing in them.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: String,
}

impl Fields {
    /// A value as it is.
    pub(super) fn plain(&mut self, name: &str, value: impl Display) {
        // Writing into a string does not fail.
        let _ = writeln!(self.text, "\"{name}\" : {value}");
    }

    /// Bytes as Go quotes them.
    pub(super) fn quoted(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = quoted(value.as_ref());
        self.plain(name, value);
    }

    /// What every answer begins with.
    pub(super) fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.plain("ClusterID", header.cluster_id);
        self.plain("MemberID", header.member_id);
        self.plain("Revision", header.revision);
        self.plain("RaftTerm", header.raft_term);
    }

    /// A pair, each name with `prefix` before it.
    pub(super) fn pair(&mut self, prefix: &str, pair: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &pair.key);
        self.plain(&format!("{prefix}CreateRevision"), pair.create_revision);
        self.plain(&format!("{prefix}ModRevision"), pair.mod_revision);
        self.plain(&format!("{prefix}Version"), pair.version);
        self.quoted(&format!("{prefix}Value"), &pair.value);
        self.plain(&format!("{prefix}Lease"), pair.lease);
    }

    /// The line between two things of a list.
    pub(super) fn end(&mut self) {
        self.text.push('\n');
    }
}

/// Bytes as Go's `%q` writes them (`strconv.Quote`).
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                ' '..='~' => text.push(character),
                _ if is_printable(character) => text.push(character),
                _ => {
                    let code = u32::from(character);
                    let _ = match code {
                        0..0x80 => write!(text, "\\x{code:02x}"),
                        0x80..0x1_0000 => write!(text, "\\u{code:04x}"),
                        _ => write!(text, "\\U{code:08x}"),
                    };
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// Whether a character beyond ASCII can be seen. Rust's own quoting knows; it also escapes marks
/// that begin a text, which therefore do not.
fn is_printable(character: char) -> bool {
    !format!("a{character}").escape_debug().to_string().contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_is_not_there_is_refused() {
        struct Bare;
        impl Answer for Bare {
            fn json(&self) -> Json {
                Json::Null
            }
            fn fields(&self, _: &mut Fields) {}
        }
        for (shape, why) in [(Shape::Table, "table"), (Shape::Protobuf, "protobuf")] {
            let refused = Show { shape, hex: false }.formal(&Bare).unwrap_err();
            assert_eq!(refused.code, ExitCode::BadInput);
            assert_eq!(refused.message, format!("{why} not supported as output format"));
        }
        assert!(!Show { shape: Shape::Simple, hex: false }.formal(&Bare).unwrap());
    }

    #[test]
    fn bytes_are_quoted_as_go_does_it() {
        // What `fmt.Printf("%q")` prints.
        for (bytes, wanted) in [
            (&b"plain ~"[..], r#""plain ~""#),
            (b"a\"b\\c'", r#""a\"b\\c'""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\0\x1f\x7f", r#""\x00\x1f\x7f""#),
            ("üñ 漢 \u{1f600}".as_bytes(), "\"üñ 漢 \u{1f600}\""),
            ("e\u{301}\u{301}".as_bytes(), "\"e\u{301}\u{301}\""),
            ("\u{a0}\u{200b}\u{2028}\u{feff}".as_bytes(), r#""\u00a0\u200b\u2028\ufeff""#),
            ("\u{e0001}".as_bytes(), r#""\U000e0001""#),
            (b"\xff\xc3(\xe2\x82", r#""\xff\xc3(\xe2\x82""#),
        ] {
            assert_eq!(quoted(bytes), wanted);
        }
    }
}
