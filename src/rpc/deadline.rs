//! The time that a client gives a call (`grpc-timeout`, over JSON `Grpc-Timeout`): when it is over
//! the client is told so, and nothing more is done for the call.
//!
//! For answers that are one message. A stream that has begun is the client's to end.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

/// How long the client waits; `None` when it did not say, or not in the form of gRPC: up to eight
/// digits and a unit (`H`, `M`, `S`, `m`, `u`, `n`).
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let given = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = given.split_at_checked(given.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What a client is told whose time is over, in Go's words.
pub(super) fn exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        of(&headers)
    }

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(of(&HeaderMap::new()), None);
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("4998m"), Some(Duration::from_millis(4998)));
        assert_eq!(read("10u"), Some(Duration::from_micros(10)));
        assert_eq!(read("0n"), Some(Duration::ZERO));
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "123456789S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
