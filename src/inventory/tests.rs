use std::time::Duration;

use serde_json::{Value as Json, json};

use super::*;
use crate::cluster::layout::{Distribution, Role};
use crate::template::{Engine, Var};
use crate::yaml::{self, report};

const LAB: &str = include_str!("../../inventories/lab.yaml");
const EXAMPLE: &str = include_str!("../../inventories/example.yaml");

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), document: yaml::parse(name, text).expect("is YAML") }
}

fn sources(text: &str) -> Sources {
    Sources { inventory: vec![source("i.yml", text)], file: "i.yml".into(), ..Sources::default() }
}

pub(super) fn good(text: &str) -> Inventory {
    Inventory::resolve(&sources(text)).unwrap_or_else(|findings| panic!("{}", report(&findings)))
}

pub(super) fn refused(text: &str) -> String {
    report(&Inventory::resolve(&sources(text)).expect_err("is refused"))
}

pub(super) fn value(inventory: &Inventory, host: &str, expression: &str) -> Json {
    let vars = &inventory.host(host).expect("the host").vars;
    let template = json!(format!("{{{{ {expression} }}}}"));
    Engine::new().evaluate(&template, vars).unwrap_or_else(|e| panic!("{expression}: {e}")).value
}

fn names<'a>(hosts: impl Iterator<Item = &'a Host>) -> Vec<&'a str> {
    hosts.map(|host| host.name.as_str()).collect()
}

#[test]
fn the_inventories_that_come_along() {
    let lab = good(LAB);
    assert_eq!(names(lab.servers()), ["server1", "server2", "server3"]);
    assert_eq!(names(lab.agents()), ["agent1", "agent2"]);
    assert_eq!((lab.cluster_name.as_str(), lab.distribution), ("lab", Distribution::Embedded));
    let address = "127.77.0.21".parse().unwrap();
    assert_eq!(*lab.host("agent1").unwrap().connection(), Connection::Lab { address });
    assert_eq!(lab.warnings, []);
    assert!(lab.token.is_none());

    let example = good(EXAMPLE);
    assert_eq!(example.servers().count(), 3);
    let Connection::Ssh(ssh) = example.host("agent2.example.com").unwrap().connection() else {
        panic!("not by SSH")
    };
    assert_eq!(
        (ssh.address.as_str(), ssh.port, ssh.user.as_deref()),
        ("192.0.2.22", Some(2222), Some("ops"))
    );
    assert_eq!(value(&example, "server2.example.com", "config['node-label'][0]"), json!("zone=a"));
    assert_eq!(example.warnings, []);
}

#[test]
fn an_official_k3s_ansible_inventory_works_unchanged() {
    let inventory = good(
        "k3s_cluster:
  children:
    server:
      hosts:
        192.16.35.11:
        192.16.35.12:
        192.16.35.13:
    agent:
      hosts:
        192.16.35.14:
  vars:
    ansible_port: 22
    ansible_user: debian
    k3s_version: v1.30.2+k3s1
    api_endpoint: \"{{ hostvars[groups['server'][0]]['ansible_host'] | default(groups['server'][0]) }}\"
    extra_server_args: \"\"
",
    );
    assert_eq!(inventory.servers().count(), 3);
    assert_eq!(inventory.host("192.16.35.14").unwrap().role(), Some(Role::Agent));
    assert_eq!(value(&inventory, "192.16.35.14", "api_endpoint"), json!("192.16.35.11"));
    assert_eq!(value(&inventory, "192.16.35.14", "groups['servers'] | length"), json!(3));
    assert_eq!(
        value(&inventory, "192.16.35.11", "group_names"),
        json!(["k3s_cluster", "server", "servers"])
    );
}

#[test]
fn precedence_is_ansibles() {
    let mut sources = sources(
        "all:
  vars: {a: all, b: all, c: all, d: all, e: all, f: all, inventory_hostname: fake}
  children:
    parent:
      vars: {b: parent, c: parent, d: parent, e: parent, f: parent}
      children:
        child:
          vars: {c: child, d: child, e: child, f: child}
          hosts:
            h1: {e: host, f: host}
",
    );
    sources
        .group_vars
        .insert("all".into(), vec![source("group_vars/all.yml", "d: all file\ne: x")]);
    sources
        .group_vars
        .insert("child".into(), vec![source("group_vars/child.yml", "d: child file")]);
    sources.host_vars.insert("h1".into(), vec![source("host_vars/h1.yml", "f: host file")]);
    sources.extra.insert("g".into(), json!("extra"));
    sources.extra.insert("a".into(), json!("extra"));
    let inventory = Inventory::resolve(&sources).unwrap();
    let found: Vec<Json> =
        ["a", "b", "c", "d", "e", "f", "g"].iter().map(|n| value(&inventory, "h1", n)).collect();
    assert_eq!(
        json!(found),
        json!(["extra", "parent", "child", "child file", "host", "host file", "extra"])
    );
    assert_eq!(value(&inventory, "h1", "inventory_hostname"), json!("h1"));
    let host = inventory.host("h1").unwrap();
    assert_eq!(host.marks["d"].to_string(), "group_vars/child.yml:1:1");
}

#[test]
fn membership_and_order() {
    let inventory = good(
        "all:
  hosts:
    zed:
    lone:
  children:
    b: {hosts: {'n[2:3]': }}
    a: {children: {b: , c: {hosts: {zed: }}}}
",
    );
    let members = |group: &str| inventory.groups[group].join(" ");
    assert_eq!(members("all"), "zed lone n2 n3");
    assert_eq!(members("a"), "zed n2 n3");
    assert_eq!(members("ungrouped"), "lone");
    assert_eq!(members("servers"), "");
    assert_eq!(inventory.children["a"], ["b", "c"]);
}

#[test]
fn connections_are_typed() {
    let inventory = good(
        "servers:
  vars:
    ansible_user: '{{ login }}'
    login: ops
    ansible_become: yes
    ansible_become_user: admin
    ansible_become_method: doas
    ansible_ssh_timeout: 5
    ansible_host_key_checking: false
    ansible_ssh_private_key_file: ~/keys/id
    ansible_ssh_common_args: -o ProxyJump=bastion
  hosts:
    s1: {ansible_host: 10.0.0.1, ansible_port: '2200', ansible_password: 12345}
    s2:2201: {ansible_ssh_host: 10.0.0.2}
    s3: {ansible_connection: local}
",
    );
    let host = inventory.host("s1").unwrap();
    assert_eq!(
        *host.connection(),
        Connection::Ssh(Ssh {
            address: "10.0.0.1".into(),
            port: Some(2200),
            user: Some("ops".into()),
            private_key_file: Some("~/keys/id".into()),
            password: Some("12345".into()),
            host_keys: Some(HostKeys::Off),
            timeout: Some(Duration::from_secs(5)),
            options: vec![("proxyjump".into(), "bastion".into())],
            config_file: None,
        })
    );
    assert_eq!(host.r#become.enabled, Some(true));
    assert_eq!((host.r#become.user.as_str(), host.r#become.method), ("admin", BecomeMethod::Doas));
    let Connection::Ssh(second) = inventory.host("s2").unwrap().connection() else {
        panic!("not by SSH")
    };
    assert_eq!((second.address.as_str(), second.port), ("10.0.0.2", Some(2201)));
    assert_eq!(*inventory.host("s3").unwrap().connection(), Connection::Local);
    assert!(!format!("{inventory:?}").contains("12345"));
}

#[test]
fn all_that_cannot_be_meant_is_found_at_once() {
    let text = "all:
  vars:
    distribution: embeded
    cluster_name: My Cluster
    bad-name: 1
  children:
    servers:
      hosts:
        s[1:3]:
        s[3:1]:
        s2:
        Ünicode:
      vras: {}
    agents:
      hosts: [a, b]
";
    assert_eq!(
        refused(text),
        "i.yml:3:5: unknown distribution `embeded` (did you mean `embedded`?)\n\
         i.yml:4:5: `My Cluster` cannot be a cluster: it must be in lower case\n\
         i.yml:5:5: `bad-name` cannot be a variable \
         (a variable's name has letters, digits and `_`, a digit not first)\n\
         i.yml:10:10: bad range in `s[3:1]`: `3` is behind `1`\n\
         i.yml:11:9: host `s2` is twice in the group `servers`\n\
         i.yml:12:9: `Ünicode` cannot be a host: only letters, digits, `-`, `.` and `_` are allowed\n\
         i.yml:13:7: unknown key `vras` in a group (did you mean `vars`?)\n\
         i.yml:15:14: `hosts` must be a mapping, found a list \
         (write each host as a key: `server1:`, its variables below it)"
    );
    let second = "all:
  vars:
    distribution: embeded
    cluster_name: My Cluster
    token: a b
  children:
    servers:
      hosts:
        s1: {ansible_port: 70000}
        s2: {ansible_host: s1, ansible_port: 22, ansible_user: '-oProxyCommand=x'}
        S3: {ansible_host: S1}
        s4: {ansible_host: '{{ nowhere }}'}
    agents:
      hosts:
        s1:
        a1: {ansible_connection: lab}
";
    assert_eq!(
        refused(second),
        "i.yml:3:5: unknown distribution `embeded` (did you mean `embedded`?)\n\
         i.yml:4:5: `My Cluster` cannot be a cluster: it must be in lower case\n\
         i.yml:5:5: `token`: it has blanks or control characters\n\
         i.yml:9:9: host `s1` is in two roles: servers and agents\n\
         i.yml:9:14: `ansible_port`: it must be a whole number from 1 to 65535\n\
         i.yml:10:14: host `s2` has the address and port s1:22 of `s1` on line 9\n\
         i.yml:10:50: `ansible_user`: it must be one word without blanks, quotes and shell characters\n\
         i.yml:11:9: `S3` cannot be a node's name: it must be in lower case\n\
         i.yml:11:14: host `S3` has the address and port s1:22 of `s1` on line 9\n\
         i.yml:12:14: `ansible_host`: `ansible_host` is undefined (in variable `ansible_host`: `nowhere` is undefined)\n\
         i.yml:16:14: `ansible_connection`: a lab host needs `ansible_host`, a loopback address of its own (127.77.0.11)"
    );
}

#[test]
fn single_refusals() {
    let cases = [
        ("servers: {hosts: {}}", "i.yml:1:1: the group of servers has no hosts"),
        ("a: {children: {b: {children: {a: }}}}", "the group `a` is below itself"),
        ("a: {children: {all: }}", "i.yml:1:16: `all` cannot be below another group"),
        ("[a, b]", "i.yml:1:1: an inventory must be a mapping, found a list"),
        ("a b: {}", "`a b` cannot be a group"),
        ("a: {hosts: {'-oProxyCommand=x': }}", "cannot be a host"),
        ("a: {hosts: {'../../etc': }}", "cannot be a host"),
        ("a: {hosts: {x: [1]}}", "the host `x` must be a mapping, found a list"),
        ("a: {hosts: {'n[1:20000]': }}", "more than 10000"),
        ("a: {hosts: {x: {ansible_connection: winrm}}}", "it must be `ssh`, `local` or `lab`"),
        ("a: {hosts: {x: {ansible_connection: lab, ansible_host: 10.0.0.1}}}", "127.0.0.0/8"),
        (
            "a: {hosts: {x: {ansible_become: maybe}}}",
            "i.yml:1:17: `ansible_become`: it must be `true`",
        ),
        ("a: {hosts: {x: {ansible_host: '{{ ansible_host }}'}}}", "needs itself"),
        (
            "a: {hosts: {x: {cluster_name: a}, y: {cluster_name: b}}}",
            "differs between hosts `x` and `y`",
        ),
        ("a: {hosts: {x: {ansible_host: [1]}}}", "it must be a text"),
    ];
    for (text, part) in cases {
        let report = refused(text);
        assert!(report.contains(part), "{text}: {report}");
    }
}

#[test]
fn what_is_likely_wrong_is_a_warning() {
    let mut sources = sources(
        "servers:
  hosts: {s1: , s2: }
  vars: {ansible_usr: x, ansible_sftp_extra_args: -J x, token: t0ken, ansible_python_interpreter: x}
s1: {hosts: {lonely: }}
",
    );
    sources.group_vars.insert("servrs".into(), vec![source("group_vars/servrs.yml", "a: 1")]);
    sources.host_vars.insert("s9".into(), vec![source("host_vars/s9.yml", "a: 1")]);
    let inventory = Inventory::resolve(&sources).unwrap();
    assert_eq!(
        report(&inventory.warnings),
        "group_vars/servrs.yml:1:1: there is no group `servrs` for these variables\n\
         host_vars/s9.yml:1:1: there is no host `s9` for these variables\n\
         i.yml:1:1: 2 servers survive no more failures than 1 (an odd number of servers is better)\n\
         i.yml:2:11: `s1` is a host and a group\n\
         i.yml:3:10: `ansible_usr` has no meaning here and is ignored (did you mean `ansible_user`?)\n\
         i.yml:3:26: `ansible_sftp_extra_args` has no meaning here and is ignored (did you mean `ansible_ssh_extra_args`?)\n\
         i.yml:3:57: `token` holds a secret in plain text \
         (keep it in a file of its own with mode 0600 and pass that with `-e @file`)"
    );
    assert_eq!(inventory.token.as_ref().map(crate::secret::Secret::expose), Some("t0ken"));
    assert_eq!(inventory.host("s1").unwrap().vars.get("token"), Some(&Var::Secret("t0ken".into())));
}

#[test]
fn patterns_select_as_in_ansible() {
    let inventory = good(
        "servers: {hosts: {'s[1:3]': }}
agents: {hosts: {'a[1:2]': }}
east: {hosts: {s1: , a1: }}
empty: {}
",
    );
    let cases = [
        ("all", "s1 s2 s3 a1 a2"),
        ("*", "s1 s2 s3 a1 a2"),
        ("servers", "s1 s2 s3"),
        ("a2,s1", "s1 a2"),
        ("s1:a2", "s1 a2"),
        ("all:!servers", "a1 a2"),
        ("!servers", "a1 a2"),
        ("&east:servers", "s1"),
        ("servers:agents:&east:!a1", "s1"),
        ("s*", "s1 s2 s3"),
        ("s[12]", ""),
        ("s?", "s1 s2 s3"),
        ("[as][!1]", "s2 s3 a2"),
        ("~s[12]", "s1 s2"),
        ("~.*1$", "s1 a1"),
        ("servers[0]", "s1"),
        ("servers[-1]", "s3"),
        ("servers[0:1]", "s1 s2"),
        ("servers[1:]", "s2 s3"),
        ("empty", ""),
        ("loadbalancers", ""),
        ("", ""),
    ];
    for (pattern, expected) in cases {
        if pattern == "s[12]" {
            // As in Ansible, digits in brackets at the end are a subscript, here of no group.
            assert!(inventory.select(pattern).is_err());
            continue;
        }
        assert_eq!(
            inventory.select(pattern).map(|n| n.join(" ")),
            Ok(expected.into()),
            "{pattern}"
        );
    }
    let errors = [
        ("servrs", "no host or group matches `servrs`; did you mean `servers`?"),
        ("servers:!nope", "no host or group matches `nope`"),
        (
            "servers[7]",
            "the pattern `servers[7]` cannot be understood: the subscript is out of range",
        ),
        ("~(", "the pattern `~(` cannot be understood"),
        ("@file", "files of host names are not supported"),
    ];
    for (pattern, part) in errors {
        let error = inventory.select(pattern).expect_err(pattern).to_string();
        assert!(error.contains(part), "{pattern}: {error}");
    }
}

fn write(directory: &std::path::Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn files_of_all_forms_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    write(root, "hosts.yml", "servers: {hosts: {s1: , s2.example: }}");
    write(
        root,
        "more.ini",
        "[agents]\na1 ansible_host=10.0.0.9 n=3 flag=True name='a b' l=\"[1, 2]\" # x\n\
        [agents:vars]\nport=80\n[big:children]\nservers\nagents\n",
    );
    write(root, "group_vars/servers/10-a.yml", "x: 1\ny: 1");
    write(root, "group_vars/servers/20-b.yml", "y: 2");
    write(root, "group_vars/all", "z: 3");
    write(root, "group_vars/.hidden.yml", "a: [");
    write(root, "host_vars/s2.example.yml", "y: 5");
    let inventory = Inventory::load(root, ExtraVars::new()).unwrap();
    let number = |host: &str, name: &str| value(&inventory, host, name);
    assert_eq!(
        (number("s1", "x"), number("s1", "y"), number("s1", "z")),
        (json!(1), json!(2), json!(3))
    );
    assert_eq!(number("s2.example", "y"), json!(5));
    assert_eq!(
        value(&inventory, "a1", "[n, flag, name, l, port]"),
        json!([3, true, "a b", [1, 2], "80"])
    );
    assert_eq!(inventory.groups["big"], ["s1", "s2.example", "a1"]);
    assert_eq!(value(&inventory, "s1", "inventory_dir"), json!(root.display().to_string()));

    write(root, "hosts.yml", "servers: {hosts: {s1: , s1: }}");
    write(root, "group_vars/all", "z: [");
    let findings = Inventory::load(root, ExtraVars::new()).unwrap_err();
    assert_eq!(findings.len(), 2, "{}", report(&findings));
    let missing = Inventory::load(&root.join("nothing.yml"), ExtraVars::new()).unwrap_err();
    assert!(report(&missing).contains("nothing.yml:1:1: cannot be read"));
}

#[test]
fn an_ini_inventory_of_techno_tim() {
    let text = "; comment\n[master]\n192.168.30.[38:40]\n\n[node]\n192.168.30.41:2222\n\n\
        [k3s_cluster:children]\nmaster\nnode\n";
    let document = ini::parse("hosts.ini", text).unwrap();
    let inventory = Inventory::resolve(&Sources {
        inventory: vec![Source { name: "hosts.ini".into(), document }],
        ..Sources::default()
    })
    .unwrap();
    assert_eq!(inventory.servers().count(), 3);
    assert_eq!(names(inventory.agents()), ["192.168.30.41"]);
    let errors = ini::parse("h", "a b\n[x:y]\n[v:vars]\nnothing\n'\n").unwrap_err();
    assert_eq!(errors.iter().map(|f| f.line).collect::<Vec<_>>(), [1, 2, 4, 5]);
}

#[test]
fn extra_variables() {
    let extra = Inventory::extra_vars(&["a=1 b='x y'", "{c: [1], d: yes}", "a=2"]).unwrap();
    assert_eq!(json!(extra), json!({"a": "2", "b": "x y", "c": [1], "d": true}));
    for bad in ["a", "1a=2", "a='x", "{a: 1, a: 2}", "@/nowhere/at/all"] {
        assert!(Inventory::extra_vars(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn names_of_secrets() {
    for name in ["token", "agent_token", "ansible_password", "ansible_ssh_pass", "S3_SECRET_KEY"] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in ["token_file", "bypass", "tokens", "compass", "password_policy"] {
        assert!(!is_secret_name(name), "{name}");
    }
}
