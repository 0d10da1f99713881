//! Which servers there are, how they are, and which one is active.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Health;

/// The servers' addresses (host names or IP addresses, without port) and their health.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    servers: Vec<Server>,
    /// The registration address: tried last, because it may be a balancer or a server that left.
    default: Option<Server>,
    active: Option<String>,
}

#[derive(Debug)]
struct Server {
    name: String,
    /// It can be dialled.
    healthy: bool,
    /// No other server is fitter to serve.
    fit: bool,
    /// Ends the connections that lead to it.
    connections: CancellationToken,
}

impl Server {
    fn new(name: &str) -> Self {
        let connections = CancellationToken::new();
        Self { name: name.to_owned(), healthy: true, fit: true, connections }
    }

    fn fail(&mut self) {
        self.healthy = false;
        self.disconnect();
    }

    fn disconnect(&mut self) {
        std::mem::take(&mut self.connections).cancel();
    }
}

impl Pool {
    /// A pool of these servers; `default` is the address that the agent was told to register at.
    pub fn new<S: AsRef<str>>(servers: impl IntoIterator<Item = S>, default: Option<&str>) -> Self {
        let servers = servers.into_iter().map(|name| Server::new(name.as_ref())).collect();
        let default = default.map(Server::new);
        Self { inner: Mutex::new(Inner { servers, default, active: None }) }
    }

    /// Takes over a new list: those that stay keep their health and connections, those that left
    /// lose both. An empty list is ignored: it could only be a mistake, and would cut the agent off.
    pub fn set_servers(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let mut old = std::mem::take(&mut inner.servers);
        for name in names {
            let known = old.iter().position(|server| server.name == *name);
            let server = known.map_or_else(|| Server::new(name), |index| old.swap_remove(index));
            inner.servers.push(server);
        }
        for mut gone in old {
            gone.fail();
        }
        if inner.active.as_ref().is_some_and(|active| !names.contains(active)) {
            inner.active = None;
        }
    }

    /// The servers' addresses, without the default.
    pub fn servers(&self) -> Vec<String> {
        self.inner.lock().servers.iter().map(|server| server.name.clone()).collect()
    }

    /// The server that connections lead to now.
    pub fn active(&self) -> Option<String> {
        self.inner.lock().active.clone()
    }

    /// Servers in the order in which to dial them: the active one, the healthy ones, those that
    /// failed or that others are fitter than, and last the default.
    pub fn candidates(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let is_active = |server: &&Server| inner.active.as_ref() == Some(&server.name);
        let active = inner.servers.iter().filter(is_active);
        let rest = || inner.servers.iter().filter(|server| !is_active(server));
        let healthy = rest().filter(|server| server.healthy && server.fit);
        let failed = rest().filter(|server| !(server.healthy && server.fit));
        let mut names: Vec<String> =
            active.chain(healthy).chain(failed).map(|server| server.name.clone()).collect();
        if let Some(default) = inner.default.as_ref().filter(|d| !names.contains(&d.name)) {
            names.push(default.name.clone());
        }
        names
    }

    /// A connection was made: the server is active from now on. The token ends it.
    pub(super) fn succeeded(&self, name: &str) -> CancellationToken {
        let mut inner = self.inner.lock();
        let Some(server) = inner.find(name) else {
            // It left the list between choosing and dialling: the connection ends at once.
            let gone = CancellationToken::new();
            gone.cancel();
            return gone;
        };
        server.healthy = true;
        let token = server.connections.child_token();
        inner.active = Some(name.to_owned());
        token
    }

    /// A health check went well.
    pub(super) fn healthy(&self, name: &str) {
        if let Some(server) = self.inner.lock().find(name) {
            server.healthy = true;
        }
    }

    /// Takes in what the servers say of themselves. Those that are worse off than the best lose
    /// their connections. While none answers nothing changes: the fault may be on this side.
    pub(super) fn judge(&self, found: &[(String, Health)]) {
        let best = found.iter().map(|(_, health)| *health).max().unwrap_or(Health::Silent);
        if best == Health::Silent {
            return;
        }
        let mut inner = self.inner.lock();
        for (name, health) in found {
            let Some(server) = inner.find(name) else { continue };
            server.fit = *health == best;
            if server.fit {
                continue;
            }
            server.disconnect();
            if inner.active.as_ref() == Some(name) {
                inner.active = None;
            }
        }
    }

    /// It could not be dialled: its connections are closed and another takes its place.
    pub(super) fn failed(&self, name: &str) {
        let mut inner = self.inner.lock();
        if let Some(server) = inner.find(name) {
            server.fail();
        }
        if inner.active.as_deref() == Some(name) {
            inner.active = None;
        }
    }
}

impl Inner {
    fn find(&mut self, name: &str) -> Option<&mut Server> {
        self.servers.iter_mut().chain(self.default.as_mut()).find(|server| server.name == name)
    }
}
