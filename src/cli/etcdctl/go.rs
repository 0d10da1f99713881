//! Text as Go's programs read and write it: quoted strings, and the words of a line.

use std::fmt::Write as _;

/// A quoted string at the beginning of `text`, after blanks, and what is behind it: what `%q` of
/// `fmt.Sscanf` takes.
pub(super) fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let text = text.trim_start();
    if let Some(text) = text.strip_prefix('`') {
        let (inner, rest) = text.split_once('`')?;
        return Some((inner.as_bytes().to_vec(), rest));
    }
    let (inner, rest) = double_quoted(text)?;
    Some((unescaped(inner)?, rest))
}

/// What stands between the quotes that `text` begins with, and what is behind them.
fn double_quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let (inner, rest) = text.split_at_checked(at)?;
                return Some((inner, rest.strip_prefix('"')?));
            }
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    None
}

/// The words of a line, as etcdctl takes a request of a transaction apart: quotes keep blanks together,
/// but only where a word begins. `None` when a quoted one is not what Go writes. All between single
/// quotes is taken, of which etcdctl 3.5 cuts off as much as there are words.
pub(super) fn words(mut line: &str) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    while let Some(first) = line.chars().next() {
        let after = line.strip_prefix(first).unwrap_or_default();
        line = match first {
            '"' => match double_quoted(line) {
                Some((inner, rest)) => {
                    words.push(unescaped(inner)?);
                    rest
                }
                None => after,
            },
            '\'' => match after.split_once('\'') {
                Some((inner, rest)) => {
                    words.push(inner.as_bytes().to_vec());
                    rest
                }
                None => after,
            },
            _ if first.is_ascii_whitespace() => after,
            _ => {
                let end = line.find(|next: char| next.is_ascii_whitespace());
                let (word, rest) = line.split_at_checked(end.unwrap_or(line.len()))?;
                words.push(word.as_bytes().to_vec());
                rest
            }
        };
    }
    Some(words)
}

/// What Go's `strconv.Unquote` makes of the inside of double quotes.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escaped.chars().next()?;
        rest = escaped.strip_prefix(kind)?;
        match kind {
            'a' => bytes.push(0x07),
            'b' => bytes.push(0x08),
            'f' => bytes.push(0x0c),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(0x0b),
            '\\' | '"' => bytes.extend_from_slice(kind.to_string().as_bytes()),
            'x' => bytes.push(number(&mut rest, 2, 16)?.try_into().ok()?),
            '0'..='7' => {
                rest = escaped;
                bytes.push(number(&mut rest, 3, 8)?.try_into().ok()?);
            }
            'u' | 'U' => {
                let digits = if kind == 'u' { 4 } else { 8 };
                let character = char::from_u32(number(&mut rest, digits, 16)?)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

/// Takes a number of so many digits off `text`.
fn number(text: &mut &str, digits: usize, base: u32) -> Option<u32> {
    let (number, rest) = text.split_at_checked(digits)?;
    *text = rest;
    let is_plain = number.chars().all(|digit| digit.is_digit(base));
    u32::from_str_radix(number, base).ok().filter(|_| is_plain)
}

/// Bytes as Go's `%q` writes them (`strconv.Quote`).
pub(super) fn quote(bytes: &[u8]) -> String {
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
    fn quoted_strings_are_read_as_go_reads_them() {
        let read = |text: &str| quoted(text).map(|(bytes, rest)| (bytes, rest.to_owned()));
        let got = |bytes: &[u8], rest: &str| Some((bytes.to_vec(), rest.to_owned()));
        assert_eq!(read(r#" "a b") x"#), got(b"a b", ") x"));
        assert_eq!(read(r"`a\b`c"), got(br"a\b", "c"));
        assert_eq!(
            read(r#""\"\\\n\t\x41\101\u00fc\U0001f600ü""#),
            got("\"\\\n\tAAü\u{1f600}ü".as_bytes(), "")
        );
        assert_eq!(read(r#""\xff\a\b\f\r\v""#), got(b"\xff\x07\x08\x0c\r\x0b", ""));
        for bad in [
            "",
            "a",
            "\"a",
            "\"a\\\"",
            r#""\q""#,
            r#""\x4""#,
            r#""\x+4""#,
            r#""\400""#,
            r#""\ud800""#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn lines_are_taken_apart_as_etcdctl_does_it() {
        for (line, wanted) in [
            ("put a b", &["put", "a", "b"][..]),
            (r#"put "a b" 'c "d"'"#, &["put", "a b", r#"c "d""#]),
            (r#"put a"b c" ''"#, &["put", "a\"b", "c\"", ""]),
            (r#"put "a"b"#, &["put", "a", "b"]),
            ("put \"a 'b", &["put", "a", "b"]),
            ("  ", &[]),
        ] {
            let words = words(line).unwrap();
            let words: Vec<_> =
                words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect();
            assert_eq!(words, wanted, "{line}");
        }
        assert_eq!(words(r#"put "\q" a"#), None);
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
            assert_eq!(quote(bytes), wanted);
        }
    }
}
