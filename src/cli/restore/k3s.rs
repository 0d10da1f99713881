//! What a restore does on servers of real K3s, where it differs: a fence that systemd keeps, K3s's own
//! `--cluster-reset` with the traps around it, and what K3s would not forget by itself.
//!
//! The fence is a drop-in of the unit with an assertion, so that it holds for any unit, also one that K3s's
//! installer wrote; K3s itself knows of none. The reset is K3s's, but what it would move aside, or change in
//! place, is moved or copied before: under a name that the way back finds.

use bytes::Bytes;

use super::drive::{Drive, RESET_MS};
use super::hosts::{Server, Servers, put};
use crate::cluster::fence::{FENCE, Fence, K3S_MARK, K3sMark, Operation, Stage, aside};
use crate::cluster::k3s::diagnose::{diagnose, telling_lines};
use crate::cluster::k3s::token::short_hash;
use crate::cluster::restore::Seen;
use crate::cluster::view::Datastore;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, CommandSpec, Done, FileContent, Observed, Output, Read};
use crate::run::address::said;
use crate::secret::Secret;
use crate::template::Engine;

/// What K3s says when a reset is done, in the words of all its versions (`pkg/etcd/etcd.go`, `Reset`).
const DONE: &str = "restart without --cluster-reset flag now";

/// How much of a reset's log is looked at, in bytes.
const LOG_BYTES: &str = "60000";

/// How many lines of it are shown when it failed.
const LOG_LINES: usize = 8;

/// How long a copy of a store may take.
const COPY_MS: u64 = 30 * 60 * 1000;

/// How long a question to the API may take.
const KUBECTL_MS: u64 = 60_000;

/// What is restored K3s's way must have been K3s's: with etcd, and with systemd to keep the fence.
pub(super) fn check(servers: &Servers<'_>, seen: &[Seen]) -> Result<(), Failure> {
    let refused = |message: String| {
        Failure::new(ExitCode::Refused, message).hint("nothing was stopped or changed")
    };
    for server in &servers.reached {
        if server.facts.service_manager == "openrc" {
            let message = format!("{}: OpenRC cannot keep K3s from being started", server.name);
            return Err(refused(message).hint("use K3s's own `k3s server --cluster-reset` there"));
        }
    }
    for host in servers.hosts() {
        if said(&Engine::new(), &host.vars, "datastore_endpoint").is_some() {
            let message = "the cluster's data is in an external datastore: restore that one";
            return Err(refused(message.to_owned()));
        }
    }
    for host in seen {
        let store = host.disk.as_ref().map_or(Datastore::Etcd, |disk| disk.datastore);
        if store != Datastore::Etcd {
            let message = format!("{}: its data is not in etcd", host.name);
            return Err(
                refused(message).hint("`k3sup-rs up` brings a single server's SQLite to etcd")
            );
        }
    }
    Ok(())
}

/// Whether K3s's bootstrap data, which is encrypted with a token, is one of `password`'s. That of the empty
/// token K3s takes for any (`pkg/cluster/storage.go`).
pub(super) fn fits_token(bootstrap_keys: &[String], password: &Secret) -> bool {
    let named = |password: &Secret| bootstrap_keys.contains(&short_hash(password));
    named(password) || named(&Secret::default())
}

/// What there is to say of a server that is left out.
pub(super) fn left_out(server: &str) -> String {
    format!(
        "{server} is left out and not fenced, and K3s does not notice by itself that its data is of the \
         past: should it come back, keep K3s from starting there and run `k3sup-rs up`; two of three \
         servers with old data would be the old cluster"
    )
}

impl Server {
    /// The drop-in that keeps K3s from starting.
    fn drop_in(&self) -> String {
        format!("{}.d/k3sup-fence.conf", self.place.layout.unit_file)
    }

    /// Closes the fence: in steps of which the last one says that it is closed.
    pub(super) async fn close(&mut self, fence: &Fence) -> Result<(), Failure> {
        if self.place.k3s.is_none() {
            return self.fence(fence, FENCE).await;
        }
        self.fence(&Fence { stage: Stage::Changing, ..fence.clone() }, FENCE).await?;
        let drop_in = self.drop_in();
        let directory = drop_in.rsplit_once('/').map(|(directory, _)| directory.to_owned());
        let text = format!(
            "# Written by k3sup-rs, and taken away by it: {}.\n# From the control machine: {}.\n[Unit]\n\
             AssertPathExists=!{}\n",
            fence.reason,
            fence.advice(),
            self.data(FENCE)
        );
        let changes = vec![
            Change::MakeDirectory {
                path: directory.unwrap_or_default(),
                mode: 0o755,
                owner: None,
                group: None,
            },
            Change::PutFile {
                path: drop_in,
                content: FileContent::Bytes(Bytes::from(text)),
                mode: 0o644,
                owner: None,
                group: None,
                backup: false,
                validate: Vec::new(),
            },
            Change::ReloadUnits,
        ];
        self.change(changes).await?;
        self.fence(fence, FENCE).await
    }

    /// Opens the fence, likewise.
    pub(super) async fn open(&mut self, fence: &Fence) -> Result<(), Failure> {
        if self.place.k3s.is_some() {
            self.fence(&Fence { stage: Stage::Changing, ..fence.clone() }, FENCE).await?;
            self.remove_drop_in().await?;
        }
        self.fence(fence, FENCE).await
    }

    /// Takes the drop-in away, and its directory when nobody else has something in it.
    async fn remove_drop_in(&mut self) -> Result<(), Failure> {
        let drop_in = self.drop_in();
        let directory = drop_in.rsplit_once('/').map(|(directory, _)| directory.to_owned());
        let argv = vec!["rmdir".to_owned(), directory.unwrap_or_default()];
        let rmdir = CommandSpec { argv, timeout_ms: KUBECTL_MS, ..CommandSpec::default() };
        let changes =
            vec![Change::Remove { path: drop_in }, Change::Run(rmdir), Change::ReloadUnits];
        self.change(changes).await.map(drop)
    }

    async fn names(&mut self, below: &str) -> Result<Vec<String>, Failure> {
        match self.read(vec![Read::Directory { path: self.data(below) }]).await?.pop() {
            Some(Observed::Names(Some(names))) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }

    /// Forgets what tells K3s that it joined already (`joined-…`, K3s before 2022) or was just reset.
    pub(super) async fn forget_stamps(&mut self) -> Result<(), Failure> {
        let names = self.names("server/db").await?;
        let stamps =
            names.iter().filter(|name| name.starts_with("joined-") || *name == "reset-flag");
        let remove =
            |name: &String| Change::Remove { path: self.data(&format!("server/db/{name}")) };
        let changes: Vec<Change> = stamps.map(remove).collect();
        if changes.is_empty() { Ok(()) } else { self.change(changes).await.map(drop) }
    }

    /// Copies `from` to `to`, both under the data directory: in full or not at all.
    async fn copy(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        let (from, to) = (self.data(from), self.data(to));
        let part = format!("{to}.part");
        self.change(vec![Change::Remove { path: part.clone() }]).await?;
        let argv = ["cp", "-a", "--", &from, &part].map(str::to_owned).to_vec();
        self.command(CommandSpec { argv, timeout_ms: COPY_MS, ..CommandSpec::default() }).await?;
        let argv = ["sync", "-f", &part].map(str::to_owned).to_vec();
        self.command(CommandSpec { argv, timeout_ms: COPY_MS, ..CommandSpec::default() }).await?;
        self.change(vec![Change::Move { from: part, to }]).await.map(drop)
    }

    /// Asks the API server of this host as K3s's administrator.
    pub(super) async fn kubectl(&mut self, words: &[String]) -> Result<(), Failure> {
        let Some(node) = &self.place.k3s else { return Ok(()) };
        let first = [&node.binary, "kubectl", "--cache-dir=/dev/null", "--kubeconfig"];
        let mut argv: Vec<String> = first.iter().map(|word| (*word).to_owned()).collect();
        argv.push(node.kubeconfig.clone());
        argv.extend_from_slice(words);
        self.command(CommandSpec { argv, timeout_ms: KUBECTL_MS, ..CommandSpec::default() }).await
    }

    /// Deletes a node and the password of its name.
    pub(super) async fn forget_k3s_node(&mut self, name: &str) -> Result<(), Failure> {
        let node = ["delete", "node", name, "--ignore-not-found"].map(str::to_owned);
        self.kubectl(&node).await?;
        self.forget_passwords(&[name.to_owned()]).await
    }

    /// Deletes the passwords of nodes' names: each node brings its own again when it next registers. What
    /// a snapshot has may be of hosts that were installed anew since.
    pub(super) async fn forget_passwords(&mut self, names: &[String]) -> Result<(), Failure> {
        let first = ["--namespace", "kube-system", "delete", "secret", "--ignore-not-found"];
        let mut words: Vec<String> = first.map(str::to_owned).to_vec();
        words.extend(names.iter().map(|name| format!("{name}.node-password.k3s")));
        self.kubectl(&words).await
    }
}

impl Drive<'_> {
    /// Makes a K3s server the only member of a store with the snapshot's or its own data.
    pub(super) async fn reset_k3s(
        &self,
        servers: &mut Servers<'_>,
        seen: &[Seen],
        name: &str,
    ) -> Result<(), Failure> {
        // A reset of a run that was killed may still be under way.
        let idle = Read::Idle { timeout_ms: RESET_MS };
        if servers.get(name)?.read(vec![idle]).await?.pop() != Some(Observed::Idle(true)) {
            let message = format!("{name}: an earlier run's reset does not end there");
            return Err(Failure::new(ExitCode::HostFailed, message));
        }
        let restores = self.intent.operation != Operation::Recover;
        if restores {
            self.prepare(servers, name).await?;
        }
        let host = seen.iter().find(|host| host.name == name);
        let server = servers.get(name)?;
        let path = if restores { self.plain(server).await? } else { String::new() };
        self.keep_k3s(server, host, restores).await?;
        self.found_k3s(server).await?;
        let log = server.data(&format!("server/reset-{}.log", self.fence.stamp()));
        let argv = self.reset_k3s_argv(server, &path, &log);
        let spec = CommandSpec { argv, timeout_ms: RESET_MS, ..CommandSpec::default() };
        let done = server.change(vec![Change::Run(spec)]).await?.into_iter().next();
        let tail = ["tail", "-c", LOG_BYTES, &log].map(str::to_owned).to_vec();
        let tail = CommandSpec { argv: tail, timeout_ms: KUBECTL_MS, ..CommandSpec::default() };
        let said = match server.read(vec![Read::Command(tail)]).await?.pop() {
            Some(Observed::Output(said)) => String::from_utf8_lossy(&said.stdout).into_owned(),
            _ => String::new(),
        };
        // K3s also ends well when somebody only asks it to end.
        let ended = matches!(&done, Some(Done::Output(Output { status: 0, .. })));
        if !ended || !said.contains(DONE) {
            return Err(failed(server, &said, &log));
        }
        let mut changes = Vec::new();
        if path != self.fence.path {
            changes.push(Change::Remove { path });
        }
        let mark = K3sMark { restore_id: self.intent.id.clone() };
        let text = serde_json::to_vec(&mark)
            .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
        changes.push(put(server.data(K3S_MARK), FileContent::Bytes(Bytes::from(text))));
        server.change(changes).await.map(drop)
    }

    /// Keeps what the reset replaces or changes.
    async fn keep_k3s(
        &self,
        server: &mut Server,
        host: Option<&Seen>,
        restores: bool,
    ) -> Result<(), Failure> {
        let stamp = self.fence.stamp();
        let (kept, tls) = (aside(stamp), format!("tls-{stamp}"));
        let above = server.names("server").await?;
        if above.iter().any(|name| name == "tls") && !above.contains(&tls) {
            server.copy("server/tls", &format!("server/{tls}")).await?;
        }
        let names = server.names("server/db").await?;
        let is_kept = names.contains(&kept);
        let has_store = names.iter().any(|name| name == "etcd");
        let disk = host.and_then(|host| host.disk.as_ref());
        let is_old = disk.is_some_and(|disk| self.fence.past.contains(&disk.member_name));
        match (restores, has_store) {
            (_, false) => {}
            // A store that is reset in place was copied before the first try.
            (false, true) if is_kept => {}
            (false, true) => server.copy("server/db/etcd", &format!("server/db/{kept}")).await?,
            (true, true) if is_old && !is_kept => server.move_store(&kept).await?,
            // What a reset that did not end left.
            (true, true) => {
                let now = super::target::now_unix_s();
                server.move_store(&format!("etcd-undone-{stamp}-{now}")).await?;
            }
        }
        if restores {
            // K3s moves what is there aside, and before 2023 fails when nothing is.
            let path = server.data("server/db/etcd");
            let make = Change::MakeDirectory { path, mode: 0o700, owner: None, group: None };
            server.change(vec![make]).await?;
        }
        Ok(())
    }

    /// The server is to join no other one now, and it was not reset yet. The playbook of `up` says at its end
    /// how it comes back.
    async fn found_k3s(&self, server: &mut Server) -> Result<(), Failure> {
        server.forget_stamps().await?;
        let drop_ins = format!("{}/config.yaml.d", server.place.layout.config_dir);
        let text =
            "# Written by k3sup-rs. The server was reset: others join it.\ncluster-init: true\n";
        let content = FileContent::Bytes(Bytes::from(text));
        server.change(vec![put(format!("{drop_ins}/bootstrap.yaml"), content)]).await.map(drop)
    }

    /// The snapshot as a plain file: K3s of 2026 cannot find a zip archive by its absolute path, and older
    /// ones know no archives. It is read once more to its end.
    async fn plain(&self, server: &mut Server) -> Result<String, Failure> {
        let path = self.fence.path.clone();
        let name = server.name.clone();
        let failed =
            |why: &str| Failure::new(ExitCode::HostFailed, format!("{name}: {path}: {why}"));
        let read = vec![Read::Snapshot { path: path.clone() }];
        let Some(Observed::Snapshot(Some(view))) = server.read(read).await?.pop() else {
            return Err(failed("it is gone"));
        };
        if let Some(problem) = &view.problem {
            return Err(failed(problem));
        }
        if !view.compressed {
            return Ok(path);
        }
        let to = server.data(&format!("server/db/restored-{}.db", self.fence.stamp()));
        let unpack = Change::UnpackSnapshot { path: path.clone(), to: to.clone() };
        server.change(vec![unpack]).await?;
        Ok(to)
    }

    /// The command line of the reset. The token is in the configuration's token file. All that it says goes
    /// to a log on the host, as it may be long.
    fn reset_k3s_argv(&self, server: &Server, path: &str, log: &str) -> Vec<String> {
        let layout = &server.place.layout;
        let script = "umask 077; exec \"$@\" >\"$0\" 2>&1";
        let mut argv: Vec<String> =
            ["sh", "-c", script, log, &layout.binary, "server"].map(str::to_owned).to_vec();
        argv.extend(["--config".to_owned(), layout.config_file.clone()]);
        argv.push("--cluster-reset".to_owned());
        if !path.is_empty() {
            argv.push(format!("--cluster-reset-restore-path={path}"));
            // A path would be taken for a name in the bucket.
            if self.verb.snapshots.s3.is_some() {
                argv.push("--etcd-s3=false".to_owned());
            }
        }
        argv
    }
}

/// Why a reset did not end well, as far as its log says.
fn failed(server: &Server, said: &str, log: &str) -> Failure {
    let lines = telling_lines(said, LOG_LINES);
    let message =
        format!("{}: K3s's cluster-reset did not end well ({log}):\n{lines}", server.name);
    let failure = Failure::new(ExitCode::HostFailed, message);
    match diagnose(said) {
        Some(found) => failure.hint(format!("{}: {}", found.cause, found.remedy)),
        None => failure,
    }
}
