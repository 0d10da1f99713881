//! Pushing the executor. Two small scripts for a POSIX shell: one looks for the right executor and
//! becomes it, the other takes it from standard input, verifies it and moves it into place.
//!
//! The scripts are constant; everything else is an argument of theirs, quoted. They have no line
//! breaks, single quotes and exclamation marks, so that a login shell of another family (csh, fish)
//! hands them over unchanged.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::channel::Connection;
use crate::remote::RemoteError;
use crate::remote::binaries::Kind;
use crate::remote::elf::Has;
use crate::remote::escalation::{Start, Way};
use crate::remote::executor::Executor;
use crate::remote::pipe::gone;

/// Bytes per write: a few SSH packets.
const CHUNK_BYTES: usize = 128 * 1024;

/// How long a chunk may be stuck. A link that is dead is noticed by keep-alives before.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the host may take to verify and move what it got.
const FINISH_TIMEOUT: Duration = Duration::from_secs(120);

/// Functions of both scripts. `sum` prints the SHA-256 of its input; openssl first, as that of older
/// coreutils knows nothing of the processor's own instructions. `mark` prints what a verified `$f`
/// is known by later (docs/ssh.md, "Which executor is started"): this boot, and what the file system
/// says of it, which changes with any write to it. Without both it prints nothing.
macro_rules! functions {
    () => {
        "\
sum() { openssl dgst -sha256 -r 2>/dev/null || sha256sum 2>/dev/null || shasum -a 256; }; \
mark() { b=; { read -r b < /proc/sys/kernel/random/boot_id; } 2>/dev/null; \
v=$(stat -c \"%d %i %s %u %a %Y %Z %y %z\" \"$f\" 2>/dev/null) && [ \"$b\" ] && [ \"$v\" ] && \
printf \"%s %s\\n\" \"$b\" \"$v\"; }; \
note() { mark > \"$f.ok\" || rm -f \"$f.ok\"; } 2>/dev/null; \
umask 077; "
    };
}

/// `$1`: hash. `$2`: its beginning, which names the file. `$3`: nonce. The rest: how to start an
/// executor, with `EXECUTOR` in the place of its path. If user `$4` is logged in already, the words up
/// to `--` are left out.
const PROBE: &str = concat!(
    functions!(),
    "\
s=$1; k=$2; n=$3; u=$4; shift 4; \
if [ \"$u\" ] && [ \"$u\" = \"$(id -un)\" ]; then \
while [ \"$1\" ] && [ \"$1\" != -- ]; do shift; done; shift; fi; \
for d in \"${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/k3sup-rs\" -; do \
[ \"$d\" = - ] && d=/var/tmp/k3sup-rs-$(id -u); \
f=$d/k3sup-rs-$k; \
if [ -O \"$d\" ] && [ -f \"$f\" ] && [ -x \"$f\" ] && [ -O \"$f\" ]; then \
h=; [ -f \"$f.ok\" ] && [ -O \"$f.ok\" ] && read -r h < \"$f.ok\"; \
if [ -z \"$h\" ] || [ \"$h\" != \"$(mark)\" ]; then \
h=$(sum < \"$f\"); [ \"${h%% *}\" = \"$s\" ] || continue; note; fi; \
i=$#; while [ $i -gt 0 ]; do a=$1; shift; [ \"$a\" = EXECUTOR ] && a=$f; set -- \"$@\" \"$a\"; \
i=$((i-1)); done; exec \"$@\"; fi; done; \
z=raw; command -v gzip >/dev/null 2>&1 && z=gzip; \
l=$(getconf GNU_LIBC_VERSION 2>/dev/null | tr \" \" -); \
[ \"$l\" ] || { set -- /lib/ld-musl-*; [ -e \"$1\" ] && l=musl; }; \
b=; { read -r b < /proc/sys/kernel/random/boot_id; } 2>/dev/null; \
printf \"k3sup-rs %s push %s %s %s %s\\n\" \"$n\" \"$(uname -m)\" $z \"${l:--}\" \"${b:--}\""
);

/// `$1`: hash. `$2`: its beginning. `$3`: nonce. `$4`: `gzip` or `raw`. Prints `k3sup-rs NONCE
/// pushed`, or `… failed WHY`. A directory where nothing can be executed is passed over.
const TAKE: &str = concat!(
    functions!(),
    "\
s=$1; k=$2; n=$3; z=$4; o=; t=; \
say() { printf \"k3sup-rs %s %s\\n\" \"$n\" \"$1\"; }; \
trap \"[ -z \\\"\\$t\\\" ] || rm -f \\\"\\$t\\\"\" 0; trap \"exit 1\" 1 2 13 15; \
for d in \"${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/k3sup-rs\" \
\"/var/tmp/k3sup-rs-$(id -u)\"; do \
[ -L \"$d\" ] && continue; mkdir -p \"$d\" 2>/dev/null; \
[ -d \"$d\" ] && [ -O \"$d\" ] && chmod 700 \"$d\" 2>/dev/null || continue; \
t=$d/.k3sup-rs-$n.part; \
printf \"#\\041/bin/sh\\nexit 0\\n\" 2>/dev/null > \"$t\" && chmod 700 \"$t\" && \"$t\" 2>/dev/null && \
{ o=$d; break; }; rm -f \"$t\"; t=; done; \
if [ -z \"$o\" ]; then say \"failed place\"; exit 1; fi; \
find \"$o\" -maxdepth 1 -name \".k3sup-rs-*.part\" -mmin +60 -exec rm -f {} + 2>/dev/null; \
find \"$o\" -maxdepth 1 -name \"k3sup-rs-*\" -mtime +30 -exec rm -f {} + 2>/dev/null; \
if [ $z = gzip ]; then gzip -dc > \"$t\"; else cat > \"$t\"; fi || { say \"failed write\"; exit 1; }; \
h=$(sum < \"$t\"); \
if [ \"${h%% *}\" != \"$s\" ]; then say \"failed hash\"; exit 1; fi; \
f=$o/k3sup-rs-$k; \
chmod 700 \"$t\" && mv -f \"$t\" \"$f\" || { say \"failed write\"; exit 1; }; \
t=; note; say pushed"
);

/// Digits of the hash that name the file.
const NAME_DIGITS: usize = 16;

/// A host that needs the executor, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// `uname -m`.
    machine: String,
    library: Has,
    /// It can unpack gzip.
    gzip: bool,
    /// The boot of its kernel.
    boot: String,
}

impl Asked {
    /// `push MACHINE gzip|raw LIBRARY BOOT`.
    pub(super) fn parse(answer: &str) -> Option<Self> {
        let words: Vec<&str> = answer.split(' ').collect();
        let ["push", machine, packing, library, boot] = words.as_slice() else { return None };
        let fine = machine.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        let (machine, boot) = ((*machine).to_owned(), (*boot).to_owned());
        let (library, gzip) = (Has::parse(library), *packing == "gzip");
        fine.then_some(Self { machine, library, gzip, boot })
    }

    /// Whether the host is a container on this machine: they share a kernel, and so its boot.
    fn is_here(&self) -> bool {
        let own = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        own.is_ok_and(|own| own.trim_end() == self.boot)
    }

    /// What has to run on it.
    pub(super) fn kind(&self) -> Kind<'_> {
        Kind { machine: &self.machine, library: self.library }
    }
}

/// The command line that becomes the executor, or says that the host has none.
pub(super) fn probe(way: &Way, start: &Start) -> String {
    let user = way.user().unwrap_or_default();
    let sha256 = start.sha256.as_deref().unwrap_or_default();
    let argv = way.argv("EXECUTOR", start);
    let mut words = vec![sha256, beginning(sha256), &start.nonce, user];
    words.extend(argv.iter().map(String::as_str));
    script(PROBE, &words)
}

/// What of a hash names the file.
fn beginning(sha256: &str) -> &str {
    sha256.get(..NAME_DIGITS).unwrap_or(sha256)
}

/// A script and its arguments as one command line for a login shell.
fn script(text: &str, arguments: &[&str]) -> String {
    let mut line = format!("exec /bin/sh -c '{text}' k3sup-rs");
    for argument in arguments {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    line
}

/// One word for any shell. The words are names and hex digits; a quote in one ends up escaped.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Sends the executor and waits until the host has verified it. `near`: the host is this machine,
/// where bytes cost less than packing and unpacking them.
pub(super) async fn push(
    connection: &Connection,
    executor: &Executor,
    asked: &Asked,
    near: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), RemoteError> {
    let loaded = executor.load().await?;
    let packed = asked.gzip && !near && !asked.is_here();
    let bytes = if packed { executor.compressed().await? } else { loaded.bytes.clone() };
    let nonce = format!("{:032x}", rand::random::<u128>());
    let packing = if packed { "gzip" } else { "raw" };
    let words = [&loaded.sha256, beginning(&loaded.sha256), &nonce, packing];
    let mut pipe = connection.run(&script(TAKE, &words), false).await?;
    let ended = gone(pipe.said.clone());
    let sent = tokio::select! {
        biased;
        sent = send(&mut pipe.input, &bytes, progress) => sent,
        () = ended => Err(std::io::ErrorKind::ConnectionReset.into()),
    };
    let mut said = Vec::new();
    // Also when sending failed: the host has said why.
    let limit = if sent.is_ok() { FINISH_TIMEOUT } else { Duration::from_secs(5) };
    let heard = timeout(limit, (&mut pipe.output).take(64 * 1024).read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    let mark = format!("k3sup-rs {nonce} ");
    let answer = said.lines().find_map(|line| line.find(&mark).and_then(|at| line.get(at..)));
    let answer = answer.and_then(|line| line.strip_prefix(&mark));
    if answer == Some("pushed") {
        return Ok(());
    }
    let _ =
        timeout(Duration::from_millis(200), pipe.said.wait_for(|said| said.status.is_some())).await;
    let errors = pipe.said.borrow().text();
    Err(match (answer, sent, heard) {
        (Some(answer), ..) => not_taken(answer, &errors),
        (None, Err(error), _) => lost(&error.to_string(), &errors),
        (None, Ok(()), Err(_)) => lost("the host does not say that it has it", &errors),
        (None, Ok(()), Ok(_)) => lost("the connection ended", &errors),
    })
}

async fn send(
    input: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    bytes: &Bytes,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> std::io::Result<()> {
    let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut sent = 0_u64;
    progress(0, total);
    for chunk in bytes.chunks(CHUNK_BYTES) {
        timeout(CHUNK_TIMEOUT, input.write_all(chunk))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        sent += u64::try_from(chunk.len()).unwrap_or(0);
        progress(sent, total);
    }
    input.flush().await?;
    input.shutdown().await
}

fn lost(reason: &str, errors: &str) -> RemoteError {
    let errors = if errors.is_empty() { String::new() } else { format!(": {errors}") };
    RemoteError::Unreachable {
        message: format!("lost the connection while pushing the executor: {reason}{errors}"),
        hint: Some("nothing is left half done on the host; run again".to_owned()),
    }
}

fn not_taken(answer: &str, errors: &str) -> RemoteError {
    let errors = if errors.is_empty() { String::new() } else { format!(": {errors}") };
    let (reason, hint) = match answer {
        "failed place" => (
            "neither ~/.cache nor /var/tmp takes files that can be executed",
            "make one of them writable, and not mounted noexec",
        ),
        "failed hash" => (
            "what arrived is not what was sent",
            "run again; if it happens again, look at the host's disk and memory",
        ),
        _ if errors.contains("No space left") || errors.contains("quota") => {
            ("no space left on the host", "free space (or inodes) for the login user's ~/.cache")
        }
        _ if errors.contains("Read-only file system") => {
            ("the file system is read-only", "mount it read-write, then run again")
        }
        _ => ("the host could not write it", "see what the host says"),
    };
    RemoteError::Executor {
        message: format!("cannot push the executor: {reason}{errors}"),
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests;
