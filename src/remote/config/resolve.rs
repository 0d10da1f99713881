//! From all lines to what they say about one host: `Host`, `Match`, the first word counts. Pure.

use super::option::Options;
use super::read::{Line, Says};
use super::tokens::{Me, expand};
use crate::remote::wildcard;

/// What is said about the host asked for as `asked`, beyond what is `given`.
pub(super) fn resolve(
    files: &[Vec<Line>],
    me: &Me,
    asked: &str,
    given: Options,
) -> Result<(String, Options), String> {
    let mut walk =
        Walk { me, asked, host: asked.to_owned(), options: given, last: false, last_wanted: false };
    walk.files(files)?;
    walk.host = walk.name()?;
    if walk.last_wanted {
        // `Match final`: once more, with the host's own name, for what is not said yet.
        walk.last = true;
        walk.options.host_name = Some(walk.host.replace('%', "%%"));
        walk.files(files)?;
    }
    Ok((walk.host, walk.options))
}

struct Walk<'a> {
    me: &'a Me,
    asked: &'a str,
    host: String,
    options: Options,
    last: bool,
    last_wanted: bool,
}

impl Walk<'_> {
    fn files(&mut self, files: &[Vec<Line>]) -> Result<(), String> {
        files.iter().try_for_each(|lines| self.lines(lines, true))
    }

    /// `active`: whether the lines before the first `Host` count, and any at all.
    fn lines(&mut self, lines: &[Line], active: bool) -> Result<(), String> {
        let mut counts = active;
        for line in lines {
            let at = |why: String| format!("{}: {why}", line.place);
            match &line.says {
                Says::Host(patterns) => {
                    let patterns = patterns.iter().map(String::as_str);
                    counts = active && wildcard::list_matches(patterns, &self.host);
                }
                Says::Match(words) => {
                    counts = active && self.conditions(words).map_err(at)?;
                }
                Says::Include(files) => {
                    for file in files {
                        self.lines(file, counts)?;
                    }
                }
                Says::Option(keyword, arguments) if counts => {
                    self.options.set(&line.place, keyword, arguments).map_err(at)?;
                }
                Says::Option(..) => {}
            }
        }
        Ok(())
    }

    /// Where the host is, as far as it is said.
    fn name(&self) -> Result<String, String> {
        let Some(name) = &self.options.host_name else { return Ok(self.host.clone()) };
        let expanded = expand(name, |token| (token == 'h').then(|| self.host.clone()));
        expanded.map_err(|why| format!("HostName {name}: {why}"))
    }

    fn conditions(&mut self, words: &[String]) -> Result<bool, String> {
        let mut holds = true;
        let mut words = words.iter().map(String::as_str);
        let Some(mut word) = words.next() else { return Err("Match has no condition".to_owned()) };
        loop {
            let (condition, value) = match word.split_once('=') {
                Some((condition, value)) => (condition, Some(value)),
                None => (word, None),
            };
            let (condition, wanted) = match condition.strip_prefix('!') {
                Some(condition) => (condition, false),
                None => (condition, true),
            };
            let condition = condition.to_ascii_lowercase();
            let hit = match condition.as_str() {
                "all" => true,
                "canonical" => false,
                "final" => {
                    self.last_wanted = true;
                    self.last
                }
                _ => {
                    let value = value.or_else(|| words.next());
                    let value = value.ok_or_else(|| format!("Match {condition} has no value"))?;
                    // What an earlier condition excludes need not be understood.
                    holds && self.condition(&condition, value)?
                }
            };
            holds &= hit == wanted;
            match words.next() {
                Some(next) => word = next,
                None => return Ok(holds),
            }
        }
    }

    fn condition(&self, condition: &str, value: &str) -> Result<bool, String> {
        let lower = value.to_ascii_lowercase();
        let hit = |patterns: &str, text: &str| wildcard::list_matches(patterns.split(','), text);
        match condition {
            "host" => Ok(hit(&lower, &self.name()?.to_ascii_lowercase())),
            "originalhost" => Ok(hit(&lower, &self.asked.to_ascii_lowercase())),
            "user" => Ok(hit(value, self.options.user.as_ref().unwrap_or(&self.me.user))),
            "localuser" => Ok(hit(value, &self.me.user)),
            _ => Err(format!("Match {condition} is not supported")),
        }
    }
}
