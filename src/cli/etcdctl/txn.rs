//! Transactions: `txn`, which reads comparisons and requests line by line.

use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt as _;

use clap::Parser;
use serde_json::{Value as Json, json};

use super::answers::{encoded, header, sparse};
use super::connection::Connection;
use super::go;
use super::keys;
use super::show::{Answer, Fields, Show};
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::rpc::pb::etcdserverpb::request_op::Request;
use crate::rpc::pb::etcdserverpb::response_op::Response;
use crate::rpc::pb::etcdserverpb::{Compare, RequestOp, ResponseOp, TxnRequest, TxnResponse};

const GRAMMAR: &str = r#"Three parts, each ended by an empty line:
  comparisons   value("KEY") = "VALUE", mod("KEY") > "0"; create, mod, version or value, and =, !=, < or >
  requests when all are true    get, put, del, as the commands of these names
  requests when one is not

Example:
  printf 'version("lock") = "0"\n\nput lock mine\n\nget lock\n\n' | k3sup-rs etcdctl txn"#;

/// `txn`.
#[derive(Debug, clap::Args)]
#[command(after_help = GRAMMAR)]
pub(super) struct Txn {
    /// Say which part is expected
    #[arg(long, short)]
    interactive: bool,
}

pub(super) async fn run(connection: &Connection, show: Show, args: Txn) -> Result<(), Failure> {
    let request = args.read(&mut std::io::stdin().lock())?;
    let mut client = connection.client()?;
    let answer = connection.answer(client.kv.txn(request)).await?;
    if show.formal(&answer)? {
        return Ok(());
    }
    output::line(if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
    for ResponseOp { response } in &answer.responses {
        output::line("")?;
        match response {
            Some(Response::ResponseRange(answer)) => keys::show_range(show, answer)?,
            Some(Response::ResponsePut(answer)) => keys::show_put(show, answer)?,
            Some(Response::ResponseDeleteRange(answer)) => keys::show_deleted(show, answer)?,
            // Not asked for: there is no word for a transaction within one.
            Some(Response::ResponseTxn(_)) | None => {}
        }
    }
    Ok(())
}

impl Txn {
    /// Reads the three parts.
    fn read(&self, input: &mut impl BufRead) -> Result<TxnRequest, Failure> {
        self.prompt("compares:")?;
        let compare = part(input, comparison)?;
        self.prompt("success requests (get, put, del):")?;
        let success = part(input, operation)?;
        self.prompt("failure requests (get, put, del):")?;
        let failure = part(input, operation)?;
        Ok(TxnRequest { compare, success, failure })
    }

    fn prompt(&self, text: &str) -> Result<(), Failure> {
        if self.interactive { output::line(text) } else { Ok(()) }
    }
}

fn bad(why: String) -> Failure {
    Failure::new(ExitCode::BadInput, why)
}

/// Lines to an empty one.
fn part<T>(
    input: &mut impl BufRead,
    parse: fn(&str) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut found = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).map_err(|error| bad(format!("standard input: {error}")))?;
        if !line.ends_with('\n') {
            return Err(bad("standard input ended within the transaction".to_owned())
                .hint("comparisons, requests and other requests each end with an empty line"));
        }
        match line.trim() {
            "" => return Ok(found),
            line => found.push(parse(line)?),
        }
    }
}

/// `TARGET("KEY") OPERATOR "VALUE"`.
fn comparison(line: &str) -> Result<Compare, Failure> {
    let malformed = || {
        bad(format!("malformed comparison: {line}"))
            .hint(r#"it is such as value("KEY") = "VALUE", with blanks around the operator"#)
    };
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = go::quoted(rest).ok_or_else(malformed)?;
    let rest = rest.strip_prefix(")").ok_or_else(malformed)?;
    let rest = rest.strip_prefix(char::is_whitespace).ok_or_else(malformed)?;
    let (operator, rest) =
        rest.trim_start().split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (value, _) = go::quoted(rest).ok_or_else(malformed)?;
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(malformed()),
    };
    let number = || {
        let text = std::str::from_utf8(&value).ok();
        let number = text.and_then(|text| text.parse().ok());
        number.ok_or_else(|| bad(format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        _ => {
            return Err(bad(format!("malformed comparison: {line} (unknown target {target})")));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// A request within a transaction.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
enum Operation {
    Get(keys::Get),
    Put(keys::Put),
    Del(keys::Del),
}

/// `get …`, `put …` or `del …`.
fn operation(line: &str) -> Result<RequestOp, Failure> {
    let invalid = || bad(format!("invalid txn request: {line}"));
    let words = go::words(line).ok_or_else(invalid)?;
    let words = words.into_iter().map(OsString::from_vec);
    let request = match Operation::try_parse_from(words).map_err(|_| invalid())? {
        Operation::Get(get) => Request::RequestRange(get.request()),
        Operation::Put(put) => {
            let no_value = || Err(invalid().hint("a value, or --ignore-value, is missing"));
            Request::RequestPut(put.request(no_value)?)
        }
        Operation::Del(del) => Request::RequestDeleteRange(del.request()),
    };
    Ok(RequestOp { request: Some(request) })
}

impl Answer for TxnResponse {
    fn json(&self) -> Json {
        let one = |answer: &ResponseOp| {
            let answer = match &answer.response {
                Some(Response::ResponseRange(answer)) => json!({ "response_range": answer.json() }),
                Some(Response::ResponsePut(answer)) => json!({ "response_put": answer.json() }),
                Some(Response::ResponseDeleteRange(answer)) => {
                    json!({ "response_delete_range": answer.json() })
                }
                Some(Response::ResponseTxn(answer)) => json!({ "response_txn": answer.json() }),
                None => Json::Null,
            };
            json!({ "Response": answer })
        };
        let responses: Vec<_> = self.responses.iter().map(one).collect();
        let header = header(self.header.as_ref());
        sparse(json!({ "header": header, "succeeded": self.succeeded, "responses": responses }))
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.header.as_ref());
        fields.plain("Succeeded", self.succeeded);
        for answer in &self.responses {
            match &answer.response {
                Some(Response::ResponseRange(answer)) => answer.fields(fields),
                Some(Response::ResponsePut(answer)) => answer.fields(fields),
                Some(Response::ResponseDeleteRange(answer)) => answer.fields(fields),
                Some(Response::ResponseTxn(answer)) => answer.fields(fields),
                None => {}
            }
        }
    }

    encoded!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TxnRequest, String> {
        let txn = Txn { interactive: false };
        txn.read(&mut text.as_bytes()).map_err(|failure| failure.message)
    }

    #[test]
    fn three_parts_are_read() {
        let text = "value(\"a b\") != \"x\"\nm(`a`) < \"-5\"\n\nput \"a b\" y --lease=1f\n\n\
                    get a --prefix\n  del a --from-key  \n\n";
        let TxnRequest { compare, success, failure } = read(text).unwrap();
        assert_eq!(compare.len(), 2);
        assert_eq!(compare[0].key, "a b");
        assert_eq!(compare[0].result(), CompareResult::NotEqual);
        assert_eq!(compare[0].target_union, Some(TargetUnion::Value("x".into())));
        assert_eq!(compare[1].result(), CompareResult::Less);
        assert_eq!(compare[1].target_union, Some(TargetUnion::ModRevision(-5)));
        let Some(Request::RequestPut(put)) = &success[0].request else { panic!("{success:?}") };
        assert_eq!((&*put.key, &*put.value, put.lease), (&b"a b"[..], &b"y"[..], 0x1f));
        assert_eq!(failure.len(), 2);
        assert_eq!(read("\n\n\n"), Ok(TxnRequest::default()));
    }

    #[test]
    fn what_is_no_transaction_is_told() {
        for (text, wanted) in [
            ("", "standard input ended within the transaction"),
            ("value(\"a\") = \"1\"\n\nput a b", "standard input ended within the transaction"),
            ("nonsense\n", "malformed comparison: nonsense"),
            ("value(a) = \"1\"\n", "malformed comparison: value(a) = \"1\""),
            ("value(\"a\")= \"1\"\n", "malformed comparison: value(\"a\")= \"1\""),
            ("value(\"a\") == \"1\"\n", "malformed comparison: value(\"a\") == \"1\""),
            ("mod(\"a\") = \"one\"\n", "invalid txn compare request: mod(\"a\") = \"one\""),
            ("is(\"a\") = \"1\"\n", "malformed comparison: is(\"a\") = \"1\" (unknown target is)"),
            ("\nput\n", "invalid txn request: put"),
            ("\nput a\n", "invalid txn request: put a"),
            ("\nget --help\n", "invalid txn request: get --help"),
            ("\nwatch a\n", "invalid txn request: watch a"),
        ] {
            assert_eq!(read(text).unwrap_err(), wanted);
        }
    }
}
