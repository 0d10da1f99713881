//! Stand-alone members of one cluster, on loopback addresses.

use super::BINARY;
use super::member::Member;
use super::store::Store;

/// Members on `127.<net>.1` and so on, without TLS, each in a directory of its own.
pub struct Trio {
    /// Where they keep their data: `m1` and so on.
    pub directory: tempfile::TempDir,
    net: &'static str,
    prefix: Vec<String>,
}

impl Trio {
    /// None is started yet.
    pub fn new(net: &'static str) -> Self {
        Self::under(net, Vec::new())
    }

    /// The same, where a program and its arguments start each member.
    pub fn under(net: &'static str, prefix: Vec<String>) -> Self {
        Self { directory: tempfile::tempdir().expect("temporary directory"), net, prefix }
    }

    /// Where a member listens.
    pub fn url(&self, member: usize, port: u16) -> String {
        format!("http://{}", self.endpoint(member, port))
    }

    /// The same as `host:port`.
    pub fn endpoint(&self, member: usize, port: u16) -> String {
        format!("127.{}.{member}:{port}", self.net)
    }

    /// These members with their peer URLs, as `--initial-cluster` takes them.
    pub fn initial(&self, members: &[usize]) -> String {
        let parts: Vec<String> =
            members.iter().map(|member| format!("m{member}={}", self.url(*member, 2380))).collect();
        parts.join(",")
    }

    /// Starts one, with these for the first members, and more flags.
    pub fn start(&self, member: usize, initial: &[usize], more: &[&str]) -> Member {
        let (client, peer) = (self.url(member, 2379), self.url(member, 2380));
        let name = format!("m{member}");
        let data = self.directory.path().join(&name);
        let words = self.prefix.iter().map(String::as_str).chain([BINARY]);
        let (program, mut arguments) = {
            let mut words: Vec<&str> = words.collect();
            (words.remove(0), words)
        };
        arguments.extend(["etcd", "--name", &name]);
        arguments.extend(["--data-dir", data.to_str().expect("UTF-8 path")]);
        arguments.extend(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        arguments.extend(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        let initial = self.initial(initial);
        arguments.extend(["--initial-cluster", &initial]);
        // What comes last wins.
        arguments.extend(more);
        Member::start(program.as_ref(), self.directory.path(), &arguments, &[])
    }

    /// Starts the first members of a cluster, and waits until they are ready.
    pub fn begin(&self, members: &[usize], more: &[&str]) -> Vec<Member> {
        let mut started: Vec<Member> =
            members.iter().map(|member| self.start(*member, members, more)).collect();
        started.iter_mut().for_each(Member::ready);
        started
    }

    /// A client of these members.
    pub fn store(&self, members: &[usize]) -> Store {
        let urls: Vec<String> = members.iter().map(|member| self.url(*member, 2379)).collect();
        Store::plain(&urls)
    }
}
