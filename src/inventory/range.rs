//! Host ranges: `server[1:3]`, `[01:10]`, `[1:10:2]`, `[a:c]`, several in one name.

/// Most hosts that one inventory may name.
pub(super) const HOSTS_MAX: usize = 10_000;

/// All names that `text` stands for, in order; at least one.
///
/// The second value of the error is the offset of the bad range in `text`, in characters.
pub(super) fn expand(text: &str) -> Result<Vec<String>, (String, usize)> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, range)) = rest.split_once('[') {
        let offset = text.len() - range.len() - 1;
        let bad = |why: &str| (format!("bad range in `{text}`: {why}"), chars_to(text, offset));
        let (inside, after) = range.split_once(']').ok_or_else(|| bad("`]` is missing"))?;
        let items = items(inside).map_err(|why| bad(&why))?;
        if names.len().saturating_mul(items.len()) > HOSTS_MAX {
            return Err(bad(&format!("more than {HOSTS_MAX} hosts")));
        }
        names = names
            .iter()
            .flat_map(|name| items.iter().map(move |item| format!("{name}{before}{item}")))
            .collect();
        rest = after;
    }
    if let Some(at) = rest.find(']') {
        let offset = text.len() - rest.len() + at;
        return Err((format!("bad range in `{text}`: `[` is missing"), chars_to(text, offset)));
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

fn chars_to(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(0, |before| before.chars().count())
}

/// The items of what stands between the brackets.
fn items(inside: &str) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = inside.split(':').collect();
    let (first, last, step) = match parts.as_slice() {
        [first, last] => (*first, *last, "1"),
        [first, last, step] => (*first, *last, *step),
        _ => return Err("it is `first:last` or `first:last:step`".to_owned()),
    };
    let step: usize = match step.parse() {
        Ok(step) if step > 0 => step,
        _ => return Err(format!("the step `{step}` is no positive number")),
    };
    // Ansible: a range without a first number begins at 0.
    let first = if first.is_empty() { "0" } else { first };
    if last.is_empty() {
        return Err("the last item is missing".to_owned());
    }
    match (letter(first), letter(last)) {
        (Some(a), Some(z)) if a.is_ascii_lowercase() == z.is_ascii_lowercase() => {
            if a > z {
                return Err(format!("`{first}` is behind `{last}`"));
            }
            Ok((a..=z).step_by(step).map(String::from).collect())
        }
        (None, None) => numbers(first, last, step),
        _ => Err(format!("`{first}` and `{last}` are not of one kind")),
    }
}

fn letter(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?;
    chars.next().is_none().then_some(letter)
}

fn numbers(first: &str, last: &str, step: usize) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| format!("`{text}` is neither a number nor a letter"))
    };
    let (from, to) = (number(first)?, number(last)?);
    let padded = first.len() > 1 && first.starts_with('0');
    if padded && first.len() != last.len() {
        return Err(format!("`{first}` and `{last}` must have as many digits when zeros lead"));
    }
    if from > to {
        return Err(format!("`{first}` is behind `{last}`"));
    }
    if (to - from) / step >= HOSTS_MAX {
        return Err(format!("more than {HOSTS_MAX} hosts"));
    }
    let width = if padded { first.len() } else { 0 };
    Ok((from..=to).step_by(step).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_expand_as_in_ansible() {
        let cases = [
            ("web", "web"),
            ("server[1:3]", "server1 server2 server3"),
            ("n[01:03].example", "n01.example n02.example n03.example"),
            ("n[08:11:2]", "n08 n10"),
            ("n[:2]", "n0 n1 n2"),
            ("db-[a:c]", "db-a db-b db-c"),
            ("r[1:2]-[x:y]", "r1-x r1-y r2-x r2-y"),
            ("n[5:5]", "n5"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                expand(text).map(|names| names.join(" ")),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_ranges_say_what_is_bad() {
        let cases = [
            ("n[3:1]", "`3` is behind `1`", 1),
            ("n[c:a]", "`c` is behind `a`", 1),
            ("n[1:c]", "not of one kind", 1),
            ("n[1:3", "`]` is missing", 1),
            ("n1:3]", "`[` is missing", 4),
            ("n[1]", "first:last", 1),
            ("n[01:100]", "as many digits", 1),
            ("n[1:9:0]", "step", 1),
            ("n[1:]", "last item", 1),
            ("n[1:99999999]", "more than 10000", 1),
            ("n[1:99999999999999999999999]", "neither a number", 1),
            ("n[1:500]-[1:500]", "more than 10000", 9),
            ("n[-1:3]", "neither a number", 1),
        ];
        for (text, part, column) in cases {
            let (message, at) = expand(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
            assert_eq!(at, column, "{text}");
        }
    }
}
