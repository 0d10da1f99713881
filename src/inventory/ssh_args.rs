//! `ansible_ssh_common_args` and its like: the arguments of `ssh(1)` that an inventory gives, as
//! options of `ssh_config(5)`. Pure; what the options mean is not known here.

/// Flags of `ssh` that change nothing here.
const WITHOUT_MEANING: [&str; 8] = ["-C", "-a", "-n", "-q", "-T", "-x", "-t", "-k"];

/// What arguments say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SshArgs {
    /// Keywords of `ssh_config(5)` with their values, in order.
    pub(super) options: Vec<(String, String)>,
    /// `-F`.
    pub(super) config_file: Option<String>,
}

/// Adds what `text` says to `args`.
pub(super) fn read(text: &str, args: &mut SshArgs) -> Result<(), String> {
    let words = shell_words::split(text).map_err(|_| "a quote is not closed".to_owned())?;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let all_v = word.strip_prefix("-v").is_some_and(|rest| rest.chars().all(|c| c == 'v'));
        if all_v || WITHOUT_MEANING.contains(&word.as_str()) {
            continue;
        }
        let (flag, attached) = match word.char_indices().nth(2) {
            Some((at, _)) if word.starts_with('-') => word.split_at(at),
            _ => (word.as_str(), ""),
        };
        let mut value = || {
            let attached = Some(attached.to_owned()).filter(|text| !text.is_empty());
            attached.or_else(|| words.next()).ok_or_else(|| format!("`{flag}` has no value"))
        };
        let option = match flag {
            "-o" => {
                let text = value()?;
                let at = text.find(|c: char| c == '=' || c.is_whitespace());
                let at = at.ok_or_else(|| format!("`-o {text}` has no value"))?;
                let (keyword, rest) = text.split_at(at);
                let rest = rest.trim_start();
                let rest = rest.strip_prefix('=').unwrap_or(rest);
                (keyword.to_ascii_lowercase(), rest.trim().to_owned())
            }
            "-J" => ("proxyjump".to_owned(), value()?),
            "-p" => ("port".to_owned(), value()?),
            "-l" => ("user".to_owned(), value()?),
            "-i" => ("identityfile".to_owned(), value()?),
            "-F" => {
                args.config_file = Some(value()?);
                continue;
            }
            "-4" => ("addressfamily".to_owned(), "inet".to_owned()),
            "-6" => ("addressfamily".to_owned(), "inet6".to_owned()),
            "-A" => return Err("`-A`: an agent is never forwarded".to_owned()),
            other => {
                let shown: String = other.chars().take(20).collect();
                return Err(format!(
                    "`{shown}` is not supported; -o, -J, -p, -l, -i, -F, -4, -6 are"
                ));
            }
        };
        args.options.push(option);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<(String, String)> {
        let mut args = SshArgs::default();
        read(text, &mut args).unwrap();
        args.options
    }

    #[test]
    fn arguments_become_options() {
        let expected = [
            ("proxyjump", "ops@bastion:2222"),
            ("stricthostkeychecking", "no"),
            ("userknownhostsfile", "/dev/null"),
            ("port", "22"),
            ("proxycommand", "ssh -W %h:%p -q bastion"),
            ("addressfamily", "inet6"),
        ];
        let text = "-J ops@bastion:2222 -oStrictHostKeyChecking=no -C -o 'UserKnownHostsFile \
                    /dev/null' -p22 -vvv -o ProxyCommand=\"ssh -W %h:%p -q bastion\" -6";
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(options(text), expected);
        let mut args = SshArgs::default();
        read("-F none", &mut args).unwrap();
        assert_eq!(args.config_file.as_deref(), Some("none"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, part) in [
            ("-A", "never forwarded"),
            ("-L 80:a:80", "`-L` is not supported"),
            ("bastion", "`bastion` is not supported"),
            ("-o", "`-o` has no value"),
            ("-o Port", "no value"),
            ("-o 'x", "quote"),
        ] {
            let error = read(text, &mut SshArgs::default()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
