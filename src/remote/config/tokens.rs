//! Tokens of `ssh_config(5)`: `%h` and its like, `${NAME}` and `~`. Pure.

use std::path::{Path, PathBuf};

/// Who runs this, and where.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    /// Home directory: `%d` and `~`.
    pub(crate) home: PathBuf,
    /// Login: `%u`.
    pub(crate) user: String,
    /// `%i`.
    pub(crate) uid: u32,
    /// This machine's name: `%l`, and `%L` up to the first dot.
    pub(crate) machine: String,
}

impl Me {
    /// Who runs this process. The home directory is `$HOME`'s.
    pub(crate) fn now() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let home = etcetera::home_dir().unwrap_or_else(|_| PathBuf::from("/nonexistent"));
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { home, user: crate::host::user_name(uid), uid, machine }
    }
}

/// What the tokens of a host stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) me: &'a Me,
    /// `%h`: where it is.
    pub(super) host: &'a str,
    /// `%n`: as it was asked for.
    pub(super) asked: &'a str,
    /// `%p`.
    pub(super) port: u16,
    /// `%r`.
    pub(super) user: &'a str,
    /// `%k`: under which name its key is known.
    pub(super) key_name: &'a str,
}

impl Names<'_> {
    /// `text` with its tokens replaced.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        expand(text, |token| match token {
            'd' => Some(self.me.home.display().to_string()),
            'h' => Some(self.host.to_owned()),
            'i' => Some(self.me.uid.to_string()),
            'k' => Some(self.key_name.to_owned()),
            'L' => self.me.machine.split('.').next().map(str::to_owned),
            'l' => Some(self.me.machine.clone()),
            'n' => Some(self.asked.to_owned()),
            'p' => Some(self.port.to_string()),
            'r' => Some(self.user.to_owned()),
            'u' => Some(self.me.user.clone()),
            _ => None,
        })
    }

    /// A file's name with `~`, tokens and variables of the environment replaced.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, String> {
        let text = variables(text, |name| std::env::var(name).ok())?;
        Ok(at_home(&self.expand(&text)?, &self.me.home))
    }
}

/// Replaces `%x` by what `value` gives; `%%` is `%`.
pub(super) fn expand(text: &str, value: impl Fn(char) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '%' { rest.next() } else { None }) {
            ('%', Some('%')) => expanded.push('%'),
            ('%', Some(token)) => {
                let replaced = value(token);
                let replaced = replaced.ok_or_else(|| format!("%{token} is not known here"))?;
                expanded.push_str(&replaced);
            }
            ('%', None) => return Err(format!("`{text}` ends with a `%`")),
            (c, _) => expanded.push(c),
        }
    }
    Ok(expanded)
}

/// Replaces `${NAME}`.
fn variables(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or(format!("`{text}`: `${{` has no end"))?;
        expanded.push_str(before);
        expanded.push_str(&value(name).ok_or(format!("${name} is not set"))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `~/` is the home directory.
pub(crate) fn at_home(text: &str, home: &Path) -> PathBuf {
    match text.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None if text == "~" => home.to_owned(),
        None => PathBuf::from(text),
    }
}
