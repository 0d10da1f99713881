//! The checkpoint's own thread.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::keeper::{Keeper, Opener};
use super::tree::Tree;
use super::{Batch, CheckpointError, Loaded, Size};

/// Called on the checkpoint's thread when the request is done.
pub type Done<T = ()> = Box<dyn FnOnce(Result<T, CheckpointError>) + Send>;

/// How long closing may take. sled may wait for ever when its disk is full, and what it has not
/// written is in the log: nothing is lost when the process ends without it.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether the thread has ended.
const CLOSE_POLL: Duration = Duration::from_millis(2);

enum Request {
    Commit(Batch, Done),
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

    /// Makes a batch durable. After an error the checkpoint has been set aside, and the next batch
    /// must be a reset with the whole state; the member itself goes on.
    pub fn commit(&self, batch: Batch, done: Done) {
        self.send(Request::Commit(batch, done));
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
    k3sup_rs_allocator::give_back();
    while let Ok(request) = requests.recv() {
        match request {
            Request::Commit(batch, done) => {
                done(keeper.commit(&batch));
                drop(batch);
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
