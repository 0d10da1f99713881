//! What a Linux binary needs of a host: the machine and the C library, as its ELF headers say.
//!
//! Pure: bytes in, facts out.

use std::fmt;

use object::Endianness;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader as _};

/// A version of glibc, for example 2.36.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glibc(u32, u32);

/// The C library that a binary is linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// None: it is static.
    Nothing,
    /// musl's loader.
    Musl,
    /// glibc, at least of this version.
    Glibc(Glibc),
}

/// The C library that a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// glibc of this version.
    Glibc(Glibc),
    /// musl.
    Musl,
    /// It could not be found out.
    Unknown,
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "glibc {}.{}", self.0, self.1)
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no C library"),
            Self::Musl => f.write_str("musl"),
            Self::Glibc(version) => version.fmt(f),
        }
    }
}

impl fmt::Display for Has {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc(version) => version.fmt(f),
            Self::Musl => f.write_str("musl"),
            Self::Unknown => f.write_str("a C library that is not known"),
        }
    }
}

impl Has {
    /// As the script that looks for the executor says it: `glibc-2.36`, `musl`, or something else.
    pub(super) fn parse(word: &str) -> Self {
        match word.strip_prefix("glibc-").and_then(version) {
            Some(version) => Self::Glibc(version),
            None if word == "musl" => Self::Musl,
            None => Self::Unknown,
        }
    }

    /// Whether a binary with these needs starts. Of a host that does not say it is found out by
    /// trying.
    pub(super) fn meets(self, needs: Needs) -> bool {
        match (needs, self) {
            (Needs::Nothing, _) | (_, Self::Unknown) | (Needs::Musl, Self::Musl) => true,
            (Needs::Glibc(needs), Self::Glibc(has)) => has >= needs,
            (Needs::Musl, Self::Glibc(_)) | (Needs::Glibc(_), Self::Musl) => false,
        }
    }
}

/// `2.36`, `2.2.5`: what comes after the second number does not matter.
fn version(text: &str) -> Option<Glibc> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    Some(Glibc(major, parts.next()?.parse().ok()?))
}

/// What the binary needs; `None` when it cannot be read as ELF.
pub(super) fn needs(bytes: &[u8]) -> Option<Needs> {
    match object::FileKind::parse(bytes).ok()? {
        object::FileKind::Elf32 => of::<FileHeader32<Endianness>>(bytes),
        object::FileKind::Elf64 => of::<FileHeader64<Endianness>>(bytes),
        _ => None,
    }
}

fn of<Header: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> Option<Needs> {
    let header = Header::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    let loader = segments.iter().find_map(|segment| segment.interpreter(endian, bytes).ok()?);
    let Some(loader) = loader else { return Some(Needs::Nothing) };
    if String::from_utf8_lossy(loader).contains("ld-musl-") {
        return Some(Needs::Musl);
    }
    let mut newest = Glibc(2, 0);
    let sections = header.sections(endian, bytes).ok()?;
    if let Some((mut libraries, link)) = sections.gnu_verneed(endian, bytes).ok()? {
        let strings = sections.strings(endian, bytes, link).ok()?;
        while let Some((_, mut versions)) = libraries.next().ok()? {
            while let Some(needed) = versions.next().ok()? {
                let name = String::from_utf8_lossy(needed.name(endian, strings).ok()?);
                newest =
                    newest.max(name.strip_prefix("GLIBC_").and_then(version).unwrap_or(newest));
            }
        }
    }
    Some(Needs::Glibc(newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_binaries_are_compared() {
        let old = Has::parse("glibc-2.31");
        assert_eq!(old, Has::Glibc(Glibc(2, 31)));
        assert!(old.meets(Needs::Glibc(Glibc(2, 9))) && old.meets(Needs::Glibc(Glibc(2, 31))));
        assert!(!old.meets(Needs::Glibc(Glibc(2, 34))) && !old.meets(Needs::Musl));
        assert!(Has::parse("musl").meets(Needs::Musl));
        assert!(!Has::parse("musl").meets(Needs::Glibc(Glibc(2, 1))));
        for word in ["-", "", "glibc-x", "glibc-2"] {
            assert_eq!(Has::parse(word), Has::Unknown, "{word}");
        }
        assert!(Has::Unknown.meets(Needs::Glibc(Glibc(2, 99))));
        assert!(old.meets(Needs::Nothing));
    }

    #[test]
    fn this_binary_says_what_it_needs() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let needs = needs(&own).unwrap();
        if cfg!(target_env = "gnu") && !cfg!(target_feature = "crt-static") {
            assert!(matches!(needs, Needs::Glibc(version) if version > Glibc(2, 10)), "{needs}");
        }
    }

    #[test]
    fn other_files_are_not_binaries() {
        assert_eq!(needs(b"#!/bin/sh\n"), None);
        assert_eq!(needs(b"\x7fELF"), None);
    }
}
