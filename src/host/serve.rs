//! The executor's loop: a request in, its instructions carried out, the answer out.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::host::error::HostResult;
use crate::host::frame::{self, FrameError};
use crate::host::lock::LockGuard;
use crate::host::measure::{Doors, measure};
use crate::host::protocol::{
    Change, Done, HostError, HostErrorKind, Observed, PROTOCOL_VERSION, Read, Request, Response,
};
use crate::host::services::Manager;
use crate::host::{busy, cluster, commands, facts, files, k3s, net, packages, snapshots, users};

/// How many reads of one request are under way at the same time.
const READS_AT_ONCE: usize = 16;

/// The host that the executor runs on.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) lab_root: Option<PathBuf>,
    pub(crate) manager: Manager,
    pub(crate) sha256: Option<String>,
    /// Listeners that a measurement needs.
    pub(crate) doors: Doors,
}

impl Host {
    /// This machine, or the lab host that [`crate::lab::ROOT_VARIABLE`] names. `sha256`: of the
    /// executor's own binary, in hex, if who started it has just verified it; else it is computed
    /// when asked for.
    pub fn detect(sha256: Option<String>) -> Self {
        let lab_root = std::env::var_os(crate::lab::ROOT_VARIABLE).map(PathBuf::from);
        let manager = Manager::detect(lab_root.as_deref());
        Self { manager, lab_root, sha256, doors: Doors::default() }
    }

    async fn read(&self, read: Read) -> HostResult<Observed> {
        match read {
            Read::Facts => facts::read(self).await.map(|facts| Observed::Facts(Box::new(facts))),
            Read::Path { path, follow, hash } => {
                blocking(move || files::stat(&path, follow, hash)).await.map(Observed::Path)
            }
            Read::File { path, bytes_max } => {
                blocking(move || files::content(&path, bytes_max)).await.map(Observed::File)
            }
            Read::FilePart { path, offset, bytes_max } => {
                blocking(move || files::part(&path, offset, bytes_max)).await.map(Observed::File)
            }
            Read::Directory { path } => {
                blocking(move || files::names(&path)).await.map(Observed::Names)
            }
            Read::Space { path } => blocking(move || files::space(&path)).await,
            Read::Command(spec) => commands::run(&spec).await.map(Observed::Output),
            Read::Service { name } => self.manager.facts(&name).await.map(Observed::Service),
            Read::ServiceLog { name, lines } => {
                self.manager.log(&name, lines).await.map(Observed::Text)
            }
            Read::Packages { names } => packages::read(self, &names).await.map(Observed::Packages),
            Read::User { name } => users::user(&name).await.map(Observed::User),
            Read::TcpProbe { host, port, timeout_ms } => {
                Ok(Observed::Reachable(net::reaches(&host, port, timeout_ms).await))
            }
            Read::Idle { timeout_ms } => {
                let limit = Duration::from_millis(timeout_ms);
                blocking(move || Ok(busy::wait(limit))).await.map(Observed::Idle)
            }
            Read::Listener { address, port } => {
                blocking(move || net::lasting_listener(&address, port))
                    .await
                    .map(Observed::Listener)
            }
            Read::Disk { data_dir } => {
                blocking(move || cluster::disk(&data_dir)).await.map(Observed::Disk)
            }
            Read::Cluster { data_dir, supervisor } => {
                cluster::view(&data_dir, &supervisor).await.map(Observed::Cluster)
            }
            Read::Ready { data_dir, supervisor, timeout_ms } => {
                Ok(Observed::Ready(cluster::ready(&data_dir, &supervisor, timeout_ms).await))
            }
            Read::K3sDisk { data_dir } => {
                blocking(move || k3s::disk(&data_dir)).await.map(Observed::Disk)
            }
            Read::K3sCluster { node } => k3s::view(&node).await.map(Observed::Cluster),
            Read::K3sReady { node, timeout_ms } => {
                Ok(Observed::Ready(k3s::ready(&node, timeout_ms).await))
            }
            Read::Snapshot { path } => blocking(move || snapshots::read(&path))
                .await
                .map(|view| Observed::Snapshot(view.map(Box::new))),
            Read::Snapshots { dir, metadata } => {
                blocking(move || snapshots::list(&dir, &metadata)).await.map(Observed::Snapshots)
            }
            Read::LogEnd { data_dir } => {
                blocking(move || cluster::log_end(&data_dir)).await.map(Observed::LogEnd)
            }
            Read::K3sLogEnd { data_dir } => {
                blocking(move || k3s::log_end(&data_dir)).await.map(Observed::LogEnd)
            }
            Read::K3sStoreHash { data_dir, revision } => {
                let hash = k3s::store_hash(&data_dir, revision).await;
                hash.map(|(revision, hash)| Observed::StoreHash(revision, hash))
            }
            Read::StoreHash { data_dir, endpoint, revision } => {
                let hash = cluster::store_hash(&data_dir, &endpoint, revision).await;
                hash.map(|(revision, hash)| Observed::StoreHash(revision, hash))
            }
            Read::K3sTokenHash { data_dir } => {
                k3s::token::hash(&data_dir).await.map(Observed::Text)
            }
            Read::Measure(what) => measure(what, &self.doors).await.map(Observed::Measured),
        }
    }

    async fn change(&self, change: Change, kept: &mut Kept) -> HostResult<Done> {
        let lock = &mut kept.lock;
        match change {
            Change::Lock { path, holder, ttl_ms, steal } => {
                return lock.take(&path, holder, ttl_ms, steal).map(|()| Done::Ok);
            }
            Change::Unlock { path, id } => return lock.give_back(&path, &id).map(|()| Done::Ok),
            _ => lock.check()?,
        }
        self.make(change, &mut kept.grown).await
    }

    async fn make(&self, change: Change, grown: &mut Option<files::Grown>) -> HostResult<Done> {
        match change {
            Change::PutFile { .. } => files::put(change, grown).await?,
            Change::MakeDirectory { path, mode, owner, group } => {
                let owner = files::Owner::find(owner.as_deref(), group.as_deref()).await?;
                blocking(move || files::make_directory(&path, mode, owner)).await?;
            }
            Change::Link { path, target } => {
                blocking(move || files::link(&path, &target)).await?;
            }
            Change::SetAttributes { path, mode, owner, group } => {
                let owner = files::Owner::find(owner.as_deref(), group.as_deref()).await?;
                blocking(move || files::set_attributes(&path, mode, owner)).await?;
            }
            Change::Remove { path } => blocking(move || files::remove(&path)).await?,
            Change::UnpackSnapshot { path, to } => {
                blocking(move || snapshots::unpack(&path, &to)).await?;
            }
            Change::Move { from, to } => blocking(move || files::rename(&from, &to)).await?,
            Change::Run(spec) => return commands::run(&spec).await.map(Done::Output),
            Change::Service { name, action, timeout_ms } => {
                self.manager.act(&name, action, timeout_ms).await?;
            }
            Change::ReloadUnits => self.manager.reload().await?,
            Change::AddUser { .. } => users::add(&change).await?,
            Change::RemoveUser { name } => users::remove(&name).await?,
            Change::Packages { names, action, update_cache } => {
                packages::change(self, &names, action, update_cache).await?;
            }
            Change::RemoveMember { data_dir, supervisor, member_id } => {
                cluster::remove_member(&data_dir, &supervisor, &member_id).await?;
            }
            Change::RemoveK3sMember { node, member } => k3s::remove(&node, &member).await?,
            Change::HandOver { data_dir, supervisor } => {
                cluster::hand_over(&data_dir, &supervisor).await?;
            }
            Change::ForgetNode { data_dir, supervisor, name } => {
                cluster::forget_node(&data_dir, &supervisor, &name).await?;
            }
            Change::HandOverK3s { node } => k3s::hand_over(&node).await?,
            Change::RotateK3sToken { data_dir, supervisor, token } => {
                k3s::token::rotate(&data_dir, &supervisor, &token.0).await?;
            }
            Change::Lock { .. } | Change::Unlock { .. } => {
                return Err(HostError::other("the lock is not a change of the host"));
            }
        }
        Ok(Done::Ok)
    }

    async fn answer<R>(&self, request: Request, input: &mut R, kept: &mut Kept) -> Response
    where
        R: AsyncRead + Unpin,
    {
        match request {
            Request::Hello { .. } => Response::Welcome {
                protocol: PROTOCOL_VERSION,
                version: crate::version::own().to_owned(),
            },
            Request::Read(reads) => {
                let answers = stream::iter(reads).map(|read| self.read(read));
                Response::Read(answers.buffered(READS_AT_ONCE).collect().await)
            }
            Request::Change(changes) => {
                let _busy = blocking(|| Ok(busy::begin())).await;
                let mut results = Vec::with_capacity(changes.len());
                for change in changes {
                    let result = self.change(change, kept).await;
                    let failed = result.is_err();
                    results.push(result);
                    if failed {
                        break;
                    }
                }
                Response::Changed(results)
            }
            Request::Part { path, offset, length } => {
                let _busy = blocking(|| Ok(busy::begin())).await;
                let begun = match kept.lock.check() {
                    Ok(()) => files::Grown::at(kept.grown.take(), path, offset).await,
                    Err(error) => Err(error),
                };
                let received = files::receive(begun, input, length).await;
                Response::Changed(vec![received.map(|grown| {
                    kept.grown = Some(grown);
                    Done::Ok
                })])
            }
        }
    }
}

/// What an executor keeps from request to request.
#[derive(Default)]
struct Kept {
    lock: LockGuard,
    /// The long file that is on its way.
    grown: Option<files::Grown>,
}

/// Answers requests in order until `input` ends.
///
/// # Errors
/// The stream failed, or something came over it that is not understood. A caller that speaks
/// another protocol is told ours and left.
pub async fn serve<R, W>(host: &Host, mut input: R, mut output: W) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut kept = Kept::default();
    let mut greeted = false;
    while let Some(request) = frame::read(&mut input).await.map_err(broken)? {
        let speaks_ours = match &request {
            Request::Hello { protocol } => *protocol == PROTOCOL_VERSION,
            Request::Read(_) | Request::Change(_) | Request::Part { .. } => greeted,
        };
        if !speaks_ours && greeted {
            return Err(std::io::Error::other("another protocol in the middle of a session"));
        }
        greeted = speaks_ours;
        let response = if speaks_ours {
            host.answer(request, &mut input, &mut kept).await
        } else {
            let hello = Request::Hello { protocol: PROTOCOL_VERSION };
            host.answer(hello, &mut input, &mut kept).await
        };
        let body = match frame::encode(&response) {
            Ok(body) => body,
            Err(FrameError::TooLong(length)) => {
                frame::encode(&too_long(&response, length)).map_err(broken)?
            }
            Err(error) => return Err(broken(error)),
        };
        frame::write(&mut output, &body).await.map_err(broken)?;
        if !speaks_ours {
            return Ok(());
        }
    }
    Ok(())
}

fn broken(error: FrameError) -> std::io::Error {
    match error {
        FrameError::Io(error) => error,
        other => std::io::Error::other(other),
    }
}

/// In the place of an answer longer than a frame: the same number of results. What was changed was
/// changed, only the output is lost.
fn too_long(response: &Response, length: usize) -> Response {
    let error = || {
        let message =
            format!("the answers together have {length} bytes, more than fit in a message");
        HostError::new(HostErrorKind::TooLarge, message).hint("ask for less at once")
    };
    match response {
        Response::Read(results) => Response::Read(results.iter().map(|_| Err(error())).collect()),
        Response::Changed(results) => {
            let kept = |result: &Result<Done, HostError>| match result {
                Ok(Done::Output(output)) => {
                    let (stdout, stderr) = Default::default();
                    let output = output.clone();
                    Ok(Done::Output(crate::host::protocol::Output {
                        stdout,
                        stderr,
                        truncated: true,
                        ..output
                    }))
                }
                other => other.clone(),
            };
            Response::Changed(results.iter().map(kept).collect())
        }
        Response::Welcome { .. } => response.clone(),
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> HostResult<T> + Send + 'static,
) -> HostResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(HostError::other(format!("the executor failed: {error}"))))
}

#[cfg(test)]
mod tests;
