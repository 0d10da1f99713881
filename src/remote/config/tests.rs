//! Files and what they come to, case by case, and beside `ssh -G`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::destination::Hop;
use super::*;
use crate::remote::hostkey::HostKeyMode;
use crate::remote::target::{Agent, Family, SshTarget};

fn me(home: &Path) -> Me {
    Me { machine: "here.lan".to_owned(), ..Me::now() }.at(home)
}

impl Me {
    fn at(self, home: &Path) -> Self {
        Self { home: home.to_owned(), ..self }
    }
}

/// A home directory with this `~/.ssh/config`.
fn home(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    write(&home.path().join(".ssh/config"), text);
    home
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a file says about `host`, without the system's file.
fn ask(text: &str, host: &str) -> Result<SshTarget, String> {
    let home = home(text);
    let file = home.path().join(".ssh/config");
    let config = SshConfig::read(me(home.path()), file.to_str()).unwrap();
    config.destination(host, Options::default())
}

fn ok(text: &str, host: &str) -> SshTarget {
    ask(text, host).unwrap()
}

#[test]
fn the_first_word_counts_and_patterns_choose() {
    let text = "\
# a comment
User everybody
Host web* !web9
    Port 2200
    HostName %h.example.com
Host web1 db
    Port=2201   # said already for web1
    User nobody
Host *
    HostName 192.0.2.1
";
    let web = ok(text, "web1");
    assert_eq!((web.address.as_str(), web.port), ("web1.example.com", 2200));
    assert_eq!(web.user, "everybody");
    assert_eq!((ok(text, "web9").address.as_str(), ok(text, "web9").port), ("192.0.2.1", 22));
    assert_eq!(ok(text, "db").port, 2201);
}

#[test]
fn given_options_count_before_the_files() {
    let home = home("User file\nPort 1\nIdentityFile ~/file\n");
    let config = SshConfig::read(me(home.path()), None).unwrap();
    let given = Options {
        user: Some("given".to_owned()),
        identity_files: vec!["%d/given".to_owned()],
        ..Options::default()
    };
    let target = config.destination("h", given).unwrap();
    assert_eq!((target.user.as_str(), target.port), ("given", 1));
    assert_eq!(target.keys, [home.path().join("given"), home.path().join("file")]);
}

#[test]
fn what_decides_about_trust_is_read() {
    let text = "\
Host a
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
Host b
  StrictHostKeyChecking ask
  UserKnownHostsFile ~/one \"%d/two %h\"
  HostKeyAlias alias
  HashKnownHosts yes
  IdentityAgent none
  AddressFamily inet6
  ConnectTimeout 1m30
Host c
  IdentitiesOnly yes
  IdentityAgent ~/agent
";
    let a = ok(text, "a").host_keys.unwrap();
    assert_eq!((a.mode, a.learn_into, a.hashed), (HostKeyMode::Off, None, false));
    let b = ok(text, "b");
    let keys = b.host_keys.unwrap();
    assert_eq!((keys.mode, keys.hashed), (HostKeyMode::Yes, true));
    assert!(keys.learn_into.unwrap().ends_with("one"));
    assert!(keys.files[1].ends_with("two b"));
    assert_eq!(b.host_key_alias.as_deref(), Some("alias"));
    assert_eq!((b.agent, b.family), (Agent::None, Family::V6));
    assert_eq!(b.connect_timeout.unwrap().as_secs(), 90);
    let c = ok(text, "c");
    assert!(c.identities_only && matches!(c.agent, Agent::At(path) if path.ends_with("agent")));
    let d = ok(text, "d").host_keys.unwrap();
    assert_eq!(d.mode, HostKeyMode::AcceptNew);
    assert!(d.learn_into.unwrap().ends_with(".ssh/known_hosts"));
}

#[test]
fn jump_hosts_have_settings_of_their_own() {
    let text = "\
Host inner
  ProxyJump ops@middle:2200,[fd00::1]:2201
Host middle
  User ignored
  IdentityFile ~/middle
  ProxyJump outer
Host outer
  HostName outer.example.com
Host fd00::1
  User six
Host *
  ProxyJump none
";
    let inner = ok(text, "inner");
    let six = inner.via.unwrap();
    assert_eq!((six.address.as_str(), six.port, six.user.as_str()), ("fd00::1", 2201, "six"));
    let middle = six.via.unwrap();
    assert_eq!((middle.port, middle.user.as_str()), (2200, "ops"));
    assert!(middle.keys[0].ends_with("middle"));
    let outer = middle.via.unwrap();
    assert_eq!(outer.address, "outer.example.com");
    assert!(outer.via.is_none());
}

#[test]
fn a_circle_of_jump_hosts_is_refused() {
    let circle = ask("Host *\n ProxyJump bastion\n", "a").unwrap_err();
    assert!(circle.contains("circle"), "{circle}");
    let two = ask("Host a\n ProxyJump b\nHost b\n ProxyJump a\n", "a").unwrap_err();
    assert!(two.contains("circle"), "{two}");
}

#[test]
fn a_proxy_command_that_is_a_jump_is_one() {
    for command in ["ssh -W %h:%p ops@gate", "/usr/bin/ssh -q -W '[%h]:%p' -l ops -p 22 gate"] {
        let via = ok(&format!("ProxyJump none\nHost gate\nHost x\nProxyCommand {command}\n"), "x");
        assert!(via.via.is_none(), "said already: {via:?}");
        let via = ok(&format!("Host x\nProxyCommand {command}\n"), "x").via.unwrap();
        assert_eq!((via.address.as_str(), via.user.as_str()), ("gate", "ops"));
    }
    for command in ["nc %h %p", "ssh -W %h:%p -o X=y gate", "ssh -W other:22 gate", "ssh gate"] {
        let refused = ask(&format!("Host x\n  ProxyCommand {command}\n"), "x").unwrap_err();
        assert!(refused.contains("config:2: ProxyCommand"), "{command}: {refused}");
    }
    // It is about another host.
    assert!(ask("Host x\nProxyCommand nc %h %p\n", "y").is_ok());
}

#[test]
fn matches_are_understood_or_refused_where_they_matter() {
    let text = "\
Match originalhost a,b user root
  Port 1
Match host *.lan !user nobody
  Port 2
Match final host *.example.com
  Port 3
Match all
  HostName %h.example.com
";
    assert_eq!(ok(text, "x.lan").port, 2);
    assert_eq!(ok(text, "x").port, 3);
    let exec = "Match host a exec true\n  Port 1\nHost b\n  Port 2\n";
    assert!(ask(exec, "a").unwrap_err().ends_with("config:1: Match exec is not supported"));
    assert_eq!(ok(exec, "b").port, 2);
}

#[test]
fn files_include_others_where_they_stand() {
    let home = home("Host a\n  Include more/*.conf\nInclude ~/last\nHost *\n  Port 9\n");
    std::fs::create_dir(home.path().join(".ssh/more")).unwrap();
    write(&home.path().join(".ssh/more/1.conf"), "Port 1\nHost b\n  Port 2\n");
    write(&home.path().join("last"), "User last\n");
    let config = SshConfig::read(me(home.path()), None).unwrap();
    let ask = |host| config.destination(host, Options::default()).unwrap();
    assert_eq!(ask("a").port, 1);
    // Within the block of `a`, nothing is about `b`.
    assert_eq!(ask("b").port, 9);
    assert_ne!(ask("c").user, "last");
    assert_eq!(ask("a").user, "last");
    write(&home.path().join(".ssh/config"), "Include config\n");
    let endless = SshConfig::read(me(home.path()), None).unwrap_err();
    assert!(endless.contains("16 files deep"), "{endless}");
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let home = home("User mallory\n");
    let file = home.path().join(".ssh/config");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
    let error = SshConfig::read(me(home.path()), None).unwrap_err();
    assert!(error.contains("others can write it"), "{error}");
    assert!(SshConfig::read(me(home.path()), Some("/no/such/file")).is_err());
    assert!(SshConfig::read(me(home.path()), Some("none")).is_ok());
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, part) in [
        ("\nPort none\n", "config:2: `none` is no port"),
        ("User a b\n", "config:1: user takes one value"),
        ("IdentitiesOnly maybe\n", "`yes` or `no`"),
        ("StrictHostKeyChecking perhaps\n", "cannot be `perhaps`"),
        ("KnownHostsCommand /bin/x\n", "config:1: knownhostscommand is not supported"),
        ("ConnectTimeout soon\n", "no time"),
        ("IdentityFile ~/%q\n", "%q is not known"),
        ("ProxyJump a;b\n", "`a;b` is no host"),
        ("Match\n", "no condition"),
    ] {
        let error = ask(text, "h").unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let home = home("Host \"a\n");
    let error = SshConfig::read(me(home.path()), None).unwrap_err();
    assert!(error.contains("config:1: a quote is not closed"), "{error}");
}

#[test]
fn jump_hosts_are_parsed() {
    for (text, host) in [
        ("h", "h"),
        ("u@h:22", "h"),
        ("u@d@h", "h"),
        ("[::1]:22", "::1"),
        ("::1", "::1"),
        ("ssh://u@h:22/", "h"),
    ] {
        assert_eq!(Hop::parse(text).unwrap().host, host, "{text}");
    }
    for text in ["", "-oX", "h:0", "h:x", "a b", "$(id)", "[::1", "u@", "@h"] {
        assert!(Hop::parse(text).is_none(), "{text}");
    }
}

/// Files about hosts, each compared with what `ssh -G` says.
const FILES: &[&str] = &[
    "Host a\n HostName %h.x\n Port 22\n User u\nHost *\n Port 23\n User v\n",
    "Host a b\n Port 1\nHost !a *\n Port 2\nHost *\n Port 3\n",
    "Host=a\n\tPort = 5\n  User=\"some body\" # end\nHost ?\nPort 6\n",
    "Host \"a\" 'b'\n Port 7\n  # Port 8\nHost A\n Port 9\n",
    "Match host a\n Port 1\nMatch host a.x,b user root\n Port 2\nMatch !host b\n Port 3\n",
    "HostName %h.x\nMatch host a.x\n Port 4\nMatch originalhost a\n User o\n",
    "Match final host *.x\n Port 8\nMatch all\n HostName %h.x\n User m\n",
    "Match user root\n Port 2\nHost b\n User b\nMatch user b\n Port 3\n",
    "Host a b A\nProxyCommand none\nProxyJump g\n",
    "Host a b A\nProxyJump g:2,h\nProxyJump i\n",
    "IdentityFile /x\nIdentityFile /y\nIdentityFile /x\nIdentitiesOnly yes\n",
    "IdentityFile /k/%h-%r-%p-%n\nHost a\n HostName c\n User r\n Port 77\n",
    "UserKnownHostsFile /a /b\nUserKnownHostsFile /c\nStrictHostKeyChecking accept-new\n",
    "StrictHostKeyChecking off\nHostKeyAlias k\nHashKnownHosts yes\n",
    "AddressFamily inet\nConnectTimeout 90\nHost b\nConnectTimeout 5\n",
];

#[test]
fn ssh_understands_the_same() {
    let found = Command::new("ssh").arg("-V").stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: ssh is not installed");
        return;
    }
    for text in FILES {
        let home = home(text);
        let file = home.path().join(".ssh/config");
        let config = SshConfig::read(Me::now(), file.to_str()).unwrap();
        for host in ["a", "b", "A"] {
            let output = Command::new("ssh").arg("-G").arg("-F").arg(&file).arg(host).output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
            let ours = config.destination(host, Options::default()).unwrap();
            compare(&said, &ours, &format!("{host} in\n{text}"));
        }
    }
}

fn compare(said: &str, ours: &SshTarget, about: &str) {
    let all = |keyword: &str| -> Vec<&str> {
        let lines = said.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(word, _)| *word == keyword).map(|(_, value)| value).collect()
    };
    let one = |keyword: &str| all(keyword).first().copied().unwrap_or_default();
    let keys = ours.host_keys.as_ref().unwrap();
    assert_eq!(ours.address.to_ascii_lowercase(), one("hostname"), "{about}");
    assert_eq!(ours.port.to_string(), one("port"), "{about}");
    assert_eq!(ours.user, one("user"), "{about}");
    assert_eq!(ours.identities_only, one("identitiesonly") == "yes", "{about}");
    if !ours.keys.is_empty() {
        let files: Vec<PathBuf> = all("identityfile").iter().map(PathBuf::from).collect();
        // `ssh -G` shows tokens as they are.
        let shown = files.iter().any(|file| file.to_string_lossy().contains('%'));
        assert!(shown || ours.keys == files, "{about}: {files:?}");
    }
    assert_eq!(ours.host_key_alias.as_deref().unwrap_or_default(), one("hostkeyalias"), "{about}");
    assert_eq!(keys.hashed, one("hashknownhosts") == "yes", "{about}");
    let mode = match one("stricthostkeychecking") {
        "false" => HostKeyMode::Off,
        // Unset is `ask` there.
        "accept-new" | "ask" => HostKeyMode::AcceptNew,
        other => panic!("{other}"),
    };
    assert_eq!(keys.mode, mode, "{about}");
    let first = one("userknownhostsfile").split(' ').next().unwrap();
    assert_eq!(keys.files[0].display().to_string(), first, "{about}");
    let family = match one("addressfamily") {
        "inet" => Family::V4,
        "any" => Family::Any,
        other => panic!("{other}"),
    };
    assert_eq!(ours.family, family, "{about}");
    let timeout = ours.connect_timeout.map_or("none".to_owned(), |time| time.as_secs().to_string());
    assert_eq!(timeout, one("connecttimeout"), "{about}");
    let mut hops = Vec::new();
    let mut next = ours.via.as_deref();
    while let Some(hop) = next {
        let port = if hop.port == 22 { String::new() } else { format!(":{}", hop.port) };
        hops.insert(0, format!("{}{port}", hop.address));
        next = hop.via.as_deref();
    }
    assert_eq!(hops.join(","), one("proxyjump"), "{about}");
}
