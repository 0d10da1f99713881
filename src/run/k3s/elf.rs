//! What machine a program is for, from its first bytes (elf(5)). Pure.

/// Machines by their number in the file, with the names that `uname -m` gives them.
const MACHINES: [(u16, &[&str]); 5] = [
    (0x03, &["i386", "i686"]),
    (0x16, &["s390x"]),
    (0x28, &["armv6l", "armv7l", "armv8l", "arm"]),
    (0x3e, &["x86_64"]),
    (0xb7, &["aarch64", "arm64"]),
];

/// How many bytes are needed.
pub(super) const HEADER_BYTES: usize = 20;

/// Why a program that begins with `header` does not run on `architecture` (as `uname -m` names it);
/// `None` when it does, or when it is no ELF file: a script runs anywhere.
pub(super) fn mismatch(header: &[u8], architecture: &str) -> Option<String> {
    let [0x7f, b'E', b'L', b'F', _, order, ..] = header else { return None };
    let bytes: [u8; 2] = header.get(18..20)?.try_into().ok()?;
    let number = if *order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let names = MACHINES.iter().find(|(machine, _)| *machine == number).map(|(_, names)| *names);
    match names {
        Some(names) if names.contains(&architecture) => None,
        Some(names) => {
            let name = names.first().copied().unwrap_or_default();
            Some(format!("it is for {name}, the host is {architecture}"))
        }
        None => Some(format!("it is for machine {number:#x}, the host is {architecture}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(machine: u16, big: bool) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, if big { 2 } else { 1 }]);
        let bytes = if big { machine.to_be_bytes() } else { machine.to_le_bytes() };
        header[18..].copy_from_slice(&bytes);
        header
    }

    #[test]
    fn a_program_for_another_machine_is_found() {
        assert_eq!(mismatch(&header(0x3e, false), "x86_64"), None);
        assert_eq!(mismatch(&header(0xb7, false), "aarch64"), None);
        assert_eq!(mismatch(&header(0x16, true), "s390x"), None);
        assert_eq!(
            mismatch(&header(0xb7, false), "x86_64").unwrap(),
            "it is for aarch64, the host is x86_64"
        );
        assert!(mismatch(&header(0xf3, false), "x86_64").unwrap().contains("0xf3"));
        assert_eq!(mismatch(b"#!/usr/bin/env python3\n", "x86_64"), None);
        assert_eq!(mismatch(b"", "x86_64"), None);
    }
}
