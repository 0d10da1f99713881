//! Argument types that several modules share.

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value as Json};

use crate::cluster::layout::K3sNode;

/// A text argument, if it is known.
pub(super) fn text<'a>(args: &'a Map<String, Json>, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| args.get(*key)).and_then(Json::as_str)
}

/// The K3s node that the run filled in, if the host has one.
pub(super) fn k3s_node(args: &Map<String, Json>) -> Option<K3sNode> {
    args.get("k3s").and_then(|node| K3sNode::deserialize(node).ok())
}

/// Permission bits: `"0644"`, or a number that YAML read as octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = match Json::deserialize(deserializer)? {
            Json::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            // 0644 was read as octal; 644 was not, and would be 01204.
            Json::Number(number) => {
                number.as_u64().filter(|bits| *bits <= 0o777).and_then(|bits| bits.try_into().ok())
            }
            _ => None,
        };
        bits.filter(|bits| *bits <= 0o7777).map(Mode).ok_or_else(|| {
            de::Error::custom("must be octal permission bits in quotes, for example \"0644\"")
        })
    }
}

/// Yes or no, also as the text that a template gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Bool(value) => Ok(Self(value)),
            Json::String(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => Ok(Self(true)),
                "no" | "false" | "off" | "0" => Ok(Self(false)),
                _ => Err(de::Error::custom("must be yes or no")),
            },
            Json::Number(number) if number.as_u64() == Some(1) => Ok(Self(true)),
            Json::Number(number) if number.as_u64() == Some(0) => Ok(Self(false)),
            _ => Err(de::Error::custom("must be yes or no")),
        }
    }
}

/// A number, also as the text that a template gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Json::deserialize(deserializer)? {
            Json::Number(number) => number.as_u64(),
            Json::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.map(Self).ok_or_else(|| de::Error::custom("must be a whole number, not below 0"))
    }
}

/// Owner or group: a name, or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who(pub(super) String);

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::String(text) if !text.is_empty() => Ok(Self(text)),
            Json::Number(number) if number.is_u64() => Ok(Self(number.to_string())),
            _ => Err(de::Error::custom("must be a name or a number")),
        }
    }
}
