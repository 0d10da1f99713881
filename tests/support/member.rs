//! A stand-alone member: `k3sup-rs etcd` as a process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait_for;

/// A member's process; killed when dropped.
pub struct Member {
    /// Its process.
    pub child: Child,
    log: PathBuf,
}

impl Member {
    /// Starts `program` with `arguments`, in `directory`, and nothing in its environment but
    /// `variables`.
    pub fn start(
        program: &Path,
        directory: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let log =
            tempfile::Builder::new().prefix("log-").tempfile_in(directory).expect("a log file");
        let (log, path) = log.keep().expect("a log file");
        let child = Command::new(program)
            .env_clear()
            .envs(variables.iter().copied())
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        Self { child, log: path }
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    /// Waits for etcd's ready line, as harnesses do.
    #[track_caller]
    pub fn ready(&mut self) {
        wait_for("ready to serve client requests", || {
            let status = self.child.try_wait().expect("its state");
            assert!(status.is_none(), "it ended: {status:?}\n{}", self.log());
            self.log().contains(r#""msg":"ready to serve client requests""#).then_some(())
        });
    }

    /// Waits for its end by itself; gives what it said.
    pub fn ended(mut self) -> String {
        wait_for("its end", || self.child.try_wait().expect("its state"));
        self.log()
    }

    /// Cuts its power.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("its end");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// A member alone at an address, over plain HTTP, with its data in a directory of its own.
pub struct Alone {
    /// The process.
    pub member: Member,
    /// Where clients reach it.
    pub url: String,
    _directory: tempfile::TempDir,
}

impl Alone {
    /// Starts one and waits until it is ready.
    pub fn start(address: &str) -> Self {
        Self::start_with(address, &[])
    }

    /// As [`Self::start`], with further flags.
    pub fn start_with(address: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (url, peer) = (format!("http://{address}:2379"), format!("http://{address}:2380"));
        let initial = format!("real={peer}");
        let mut arguments = vec!["etcd", "--name", "real", "--initial-cluster", &initial];
        arguments.extend(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        arguments.extend(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        arguments.extend(flags);
        let mut member = Member::start(super::BINARY.as_ref(), directory.path(), &arguments, &[]);
        member.ready();
        Self { member, url, _directory: directory }
    }
}
