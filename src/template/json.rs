//! Between the engine's values and JSON.

use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

/// Deepest nesting of a value that a template may give.
const DEPTH_MAX: usize = 64;

/// `json` for templates.
pub(super) fn from_json(json: &Json) -> Value {
    Value::from(Serde(json))
}

/// `value` as JSON; an undefined value anywhere in it is an error, and so is nesting without end.
pub(super) fn to_json(value: &Value) -> Result<Json, Error> {
    convert(value, DEPTH_MAX)
}

fn convert(value: &Value, depth: usize) -> Result<Json, Error> {
    let deeper = || {
        depth.checked_sub(1).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, "the value is nested too deeply")
        })
    };
    match value.kind() {
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, "a part of the value is undefined"))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let depth = deeper()?;
            value
                .try_iter()?
                .map(|item| convert(&item, depth))
                .collect::<Result<_, _>>()
                .map(Json::Array)
        }
        ValueKind::Map => {
            let depth = deeper()?;
            let mut map = serde_json::Map::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                map.insert(key.to_string(), convert(&item, depth)?);
            }
            Ok(Json::Object(map))
        }
        ValueKind::Plain | ValueKind::Invalid => {
            Err(Error::new(ErrorKind::InvalidOperation, "the value is no plain data"))
        }
        ValueKind::Bytes => Ok(Json::String(value.to_string())),
        _ => serde_json::to_value(value)
            .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string())),
    }
}
