//! A line of `ssh_config(5)` as its keyword and arguments: quotes, backslashes, comments. Pure.

/// Blanks between words.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\x0c'];

/// The keyword in lower case and its arguments; `None` for a line that says nothing.
pub(super) fn split(line: &str) -> Result<Option<(String, Vec<String>)>, &'static str> {
    let line = line.trim_matches(BLANKS);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c| BLANKS.contains(&c) || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let keyword = keyword.trim_matches('"').to_ascii_lowercase();
    // `Port 22`, `Port=22` and `Port = 22` are the same.
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Ok(Some((keyword, arguments(rest)?)))
}

/// The words of `text` up to a comment.
fn arguments(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| BLANKS.contains(c)).is_some() {}
        match rest.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut rest)?),
        }
    }
}

fn word(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, &'static str> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = rest.next_if(|c| quote.is_some() || !BLANKS.contains(c)) {
        match (c, quote) {
            ('\\', _) => {
                let escapes = |next: &char| match next {
                    '\\' | '"' | '\'' => true,
                    ' ' => quote.is_none(),
                    _ => false,
                };
                // Before anything else it is itself.
                word.push(rest.next_if(escapes).unwrap_or('\\'));
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => word.push(c),
        }
    }
    if quote.is_some() { Err("a quote is not closed") } else { Ok(word) }
}
