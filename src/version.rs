//! This program's version, and that of another build of it. Pure but for reading the other's file.

use std::io;
use std::path::Path;

/// Every binary of this program has this text in it, with its version: what other builds of it are
/// recognised by without running them.
static MARK: &str = concat!("k3sup-rs build ", env!("CARGO_PKG_VERSION"), ";");

/// How the mark is found in another binary.
const PATTERN: &str = r"k3sup-rs build (\d+\.\d+\.\d+(?:-[0-9A-Za-z.]{1,40})?);";

/// The version of this program, for example `0.1.0`.
pub fn own() -> &'static str {
    // Not folded away: the text must stand in the binary as a whole.
    let mark = std::hint::black_box(MARK);
    mark.strip_prefix("k3sup-rs build ").and_then(|rest| rest.strip_suffix(';')).unwrap_or(mark)
}

/// The version of the build in `bytes`; `None` when it is none of this program.
pub fn of_binary(bytes: &[u8]) -> Option<String> {
    let pattern = regex::bytes::Regex::new(PATTERN).ok()?;
    let found = pattern.captures(bytes)?.get(1)?;
    String::from_utf8(found.as_bytes().to_vec()).ok()
}

/// The version of the build in the file at `path`.
///
/// # Errors
/// It cannot be read.
pub fn of_file(path: &Path) -> io::Result<Option<String>> {
    std::fs::read(path).map(|bytes| of_binary(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_known_by_its_mark() {
        assert_eq!(own(), env!("CARGO_PKG_VERSION"));
        // Put together when it runs: this binary must have no mark but its own in it.
        let minor = std::hint::black_box(9);
        let bytes = format!("\0k3sup-rs build \0k3sup-rs build 0.{minor}.1-rc.1;\0");
        assert_eq!(of_binary(bytes.as_bytes()).as_deref(), Some("0.9.1-rc.1"));
        assert_eq!(of_binary(b"an ELF of somebody else"), None);
        let this = std::env::current_exe().unwrap();
        assert_eq!(of_file(&this).unwrap().as_deref(), Some(own()));
    }
}
