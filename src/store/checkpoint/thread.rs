//! The checkpoint's own thread.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::keeper::{Keeper, Opener};
use super::tree::Tree;
use super::{Batch, CheckpointError, Loaded, Size};

/// Called on the checkpoint's thread when the request is done.
pub type Done<T = ()> = Box<dyn FnOnce(Result<T, CheckpointError>) + Send>;

/// What is written one after the other. An error ends it: what was written is incomplete.
pub type Batches = Box<dyn Iterator<Item = Result<Batch, CheckpointError>> + Send>;

/// How long closing may take. sled may wait for ever when its disk is full, and what it has not
/// written is in the log: nothing is lost when the process ends without it.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether the thread has ended.
const CLOSE_POLL: Duration = Duration::from_millis(2);

/// After so long without work what is not needed is given back.
const REST: Duration = Duration::from_secs(1);

enum Request {
    Commit(Batches, Done),
    Defragment(Done),
    Size(Done<Size>),
}

/// The checkpoint, open. Requests are done one after the other; closed when dropped, after those
/// that wait.
pub struct Checkpointer {
    sender: Option<Sender<Request>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Checkpointer {
    /// Opens the checkpoint in `dir`, creating it when missing, and hands all its records (key,
    /// value) to `each` on the calling thread. When it answers [`Loaded::Nothing`], what was handed
    /// out must be discarded.
    pub fn open(
        dir: &Path,
        mut each: impl FnMut(&[u8], Bytes),
    ) -> Result<(Self, Loaded), CheckpointError> {
        Self::open_with(dir, |dir| Ok(Box::new(Tree::open(dir)?)), &mut each)
    }

    pub(super) fn open_with(
        dir: &Path,
        open: Opener,
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<(Self, Loaded), CheckpointError> {
        let (keeper, loaded) = Keeper::open(dir, open, each)?;
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(keeper, &receiver))?;
        Ok((Self { sender: Some(sender), thread: Mutex::new(Some(thread)) }, loaded))
    }

    /// Makes batches durable, up to the last that has a mark. They are taken on the checkpoint's thread, one
    /// when the one before is written, and all of them also when it is closed meanwhile. After an error the
    /// checkpoint has been set aside or is incomplete, and the next batch must be a reset with the whole
    /// state; the member itself goes on.
    pub fn commit(&self, batches: Batches, done: Done) {
        self.send(Request::Commit(batches, done));
    }

    /// Rewrites the checkpoint into a fresh directory, which gives back what is dead.
    pub fn defragment(&self, done: Done) {
        self.send(Request::Defragment(done));
    }

    /// How large it is.
    pub fn size(&self, done: Done<Size>) {
        self.send(Request::Size(done));
    }

    fn send(&self, request: Request) {
        let unsent = match &self.sender {
            Some(sender) => sender.send(request).err().map(|refused| refused.0),
            None => Some(request),
        };
        match unsent {
            Some(Request::Commit(_, done) | Request::Defragment(done)) => {
                done(Err(CheckpointError::Closed));
            }
            Some(Request::Size(done)) => done(Err(CheckpointError::Closed)),
            None => {}
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.sender = None;
        let Some(thread) = self.thread.lock().take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() {
            if begun.elapsed() > CLOSE_LIMIT {
                tracing::warn!("the checkpoint does not end, and is left as it is");
                return;
            }
            std::thread::sleep(CLOSE_POLL);
        }
        // It panicked: the checkpoint is made again at the next start.
        let _ = thread.join();
    }
}

fn run(mut keeper: Keeper, requests: &Receiver<Request>) {
    // Here, since nobody waits for it.
    keeper.forget_reads();
    let mut is_rested = false;
    loop {
        let request = match requests.recv_timeout(REST) {
            Ok(request) => request,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if is_rested => match requests.recv() {
                Ok(request) => request,
                Err(_) => return,
            },
            Err(RecvTimeoutError::Timeout) => {
                // The threads of the backend go on freeing for a moment what they took from this one.
                k3sup_rs_allocator::give_back();
                is_rested = true;
                continue;
            }
        };
        is_rested = false;
        match request {
            Request::Commit(batches, done) => {
                done(commit(&mut keeper, batches));
                k3sup_rs_allocator::give_back();
            }
            Request::Defragment(done) => {
                done(keeper.defragment());
                k3sup_rs_allocator::give_back();
            }
            Request::Size(done) => done(keeper.size()),
        }
    }
}

fn commit(keeper: &mut Keeper, batches: Batches) -> Result<(), CheckpointError> {
    batches.into_iter().try_for_each(|batch| keeper.commit(&batch?))
}
