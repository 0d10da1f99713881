//! A server that a test starts itself, outside of a lab.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use k3sup_rs::rpc::client::TlsFiles;
use rustix::process::{Pid, Signal, kill_process};

use super::store::Store;
use super::wait_for;

/// A server on a directory; killed when dropped.
pub struct Server {
    child: Child,
    data: PathBuf,
    url: String,
}

impl Server {
    /// Starts `command`, which makes a server at `address` with this data directory.
    pub fn start(mut command: Command, data: &Path, address: &str) -> Self {
        let log = File::create(data.with_extension("log")).expect("a log file");
        let child = command.stderr(log).spawn().expect("it starts");
        Self { child, data: data.to_owned(), url: format!("https://{address}:2379") }
    }

    /// What an administrator's client needs.
    pub fn files(&self) -> TlsFiles {
        let tls = self.data.join("server/tls/etcd");
        TlsFiles {
            ca: tls.join("server-ca.crt"),
            cert: tls.join("client.crt"),
            key: tls.join("client.key"),
        }
    }

    /// Its store, once it answers.
    #[track_caller]
    pub fn ready(&self) -> Store {
        wait_for("the server to answer", || {
            let files = self.files();
            let there = files.ca.exists() && files.cert.exists() && files.key.exists();
            let store = there.then(|| Store::with(std::slice::from_ref(&self.url), &files))?;
            store.revision().ok().map(|_| store)
        })
    }

    /// Asks it to stop, and waits.
    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is told");
        self.child.wait().expect("its end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data.with_extension("log"));
            eprintln!("{}", log.unwrap_or_default());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
