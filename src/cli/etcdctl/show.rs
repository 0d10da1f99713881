//! How answers are printed: for people, or in one of the forms that programs read.

use std::fmt::{Display, Write as _};

use clap::ValueEnum;
use serde_json::Value as Json;

use super::go;
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

/// Head and rows.
pub(super) type Table = (Vec<&'static str>, Vec<Vec<String>>);

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

    /// Its table; `None` when it has none.
    fn table(&self) -> Option<Table> {
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
        match self.shape {
            Shape::Simple => return Ok(false),
            Shape::Json => output::line(&answer.json().to_string())?,
            Shape::Fields => {
                let mut fields = Fields::default();
                answer.fields(&mut fields);
                output::write_all(fields.text.as_bytes())?;
            }
            Shape::Protobuf => {
                let message = answer.message().ok_or_else(|| unsupported(self.shape))?;
                output::write_all(&message)?;
            }
            Shape::Table => {
                let (head, rows) = answer.table().ok_or_else(|| unsupported(self.shape))?;
                output::boxed(&head, rows)?;
            }
        }
        Ok(true)
    }

    /// Prints `answer`; for people the rows of its table, a line each.
    pub(super) fn rows(self, answer: &impl Answer) -> Result<(), Failure> {
        if self.formal(answer)? {
            return Ok(());
        }
        let (_, rows) = answer.table().unwrap_or_default();
        rows.iter().try_for_each(|row| output::line(&row.join(", ")))
    }

    /// Prints `answer`; for people `words`.
    pub(super) fn words(self, answer: &impl Answer, words: &str) -> Result<(), Failure> {
        if self.formal(answer)? { Ok(()) } else { output::line(words) }
    }

    /// Prints `answer`; for people `names`, a line each.
    pub(super) fn names(self, answer: &impl Answer, names: &[String]) -> Result<(), Failure> {
        if self.formal(answer)? {
            return Ok(());
        }
        names.iter().try_for_each(|name| output::line(name))
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

/// That an answer is not there in `shape`.
pub(super) fn unsupported(shape: Shape) -> Failure {
    let name = shape.to_possible_value().map(|value| value.get_name().to_owned());
    let name = name.unwrap_or_default();
    Failure::new(ExitCode::BadInput, format!("{name} not supported as output format"))
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
        let value = go::quote(value.as_ref());
        self.plain(name, value);
    }

    /// Names in a line, quoted.
    pub(super) fn list(&mut self, name: &str, values: &[String]) {
        // Writing into a string does not fail.
        let _ = write!(self.text, "\"{name}\" :");
        for value in values {
            let _ = write!(self.text, " {}", go::quote(value.as_bytes()));
        }
        self.end();
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
}
