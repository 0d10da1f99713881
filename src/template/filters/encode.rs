//! Filters between values and their encodings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error};
use sha1::Digest as _;

use super::super::json::{from_json, to_json};
use super::{add_filter, invalid, text_of};

pub(super) fn register(env: &mut Environment<'static>) {
    add_filter(env, "b64encode", |value: Value| text_of(&value).map(|text| STANDARD.encode(text)));
    add_filter(env, "b64decode", b64decode);
    add_filter(env, "to_json", |value: Value, kwargs: Kwargs| json_text(&value, &kwargs, false));
    add_filter(env, "to_nice_json", |value: Value, kwargs: Kwargs| {
        json_text(&value, &kwargs, true)
    });
    add_filter(env, "to_yaml", |value: Value, kwargs: Kwargs| yaml_text(&value, &kwargs));
    add_filter(env, "to_nice_yaml", |value: Value, kwargs: Kwargs| yaml_text(&value, &kwargs));
    add_filter(env, "from_json", from_json_text);
    add_filter(env, "from_yaml", from_yaml_text);
    add_filter(env, "hash", |value: Value, kind: Option<String>| hash(&value, kind.as_deref()));
    add_filter(env, "checksum", |value: Value| hash(&value, None));
}

fn b64decode(text: &str) -> Result<String, Error> {
    let bytes = STANDARD.decode(text.trim()).map_err(|_| invalid("the text is not base64"))?;
    String::from_utf8(bytes).map_err(|_| invalid("what is encoded in base64 is not UTF-8"))
}

/// Options of Ansible's encoders that change only the looks; any other is refused.
const LOOKS: [&str; 6] =
    ["indent", "sort_keys", "width", "default_flow_style", "ensure_ascii", "explicit_start"];

fn only_looks(kwargs: &Kwargs) -> Result<(), Error> {
    for name in LOOKS {
        kwargs.get::<Option<Value>>(name)?;
    }
    kwargs.assert_all_used()
}

fn json_text(value: &Value, kwargs: &Kwargs, nice: bool) -> Result<String, Error> {
    only_looks(kwargs)?;
    let json = to_json(value)?;
    if nice { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }
        .map_err(|error| invalid(error.to_string()))
}

fn yaml_text(value: &Value, kwargs: &Kwargs) -> Result<String, Error> {
    only_looks(kwargs)?;
    crate::yaml::to_text(&to_json(value)?).map_err(invalid)
}

fn from_json_text(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map(|json| from_json(&json)).map_err(|error| {
        invalid(format!("no JSON: line {}, column {}", error.line(), error.column()))
    })
}

fn from_yaml_text(text: &str) -> Result<Value, Error> {
    crate::yaml::parse("text", text)
        .map(|document| from_json(&document.root().to_json()))
        .map_err(|findings| invalid(crate::yaml::report(&findings)))
}

fn hash(value: &Value, kind: Option<&str>) -> Result<String, Error> {
    let text = text_of(value)?;
    match kind.unwrap_or("sha1") {
        "sha1" => Ok(hex::encode(sha1::Sha1::digest(&text))),
        "sha256" => Ok(hex::encode(sha2::Sha256::digest(&text))),
        "sha512" => Ok(hex::encode(sha2::Sha512::digest(&text))),
        other => Err(invalid(format!("no hash `{other}`; there are sha1, sha256, sha512"))),
    }
}
