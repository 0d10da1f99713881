//! Frames over a running executor's pipe: one request under way at a time, a limit for each answer,
//! and a loss that stays a loss.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::pipe::{Pipe, gone};
use super::upload::{self, Parts, Run, Upload};
use super::{RemoteError, Session};
use crate::host::frame::{self, FrameError};
use crate::host::protocol::{
    Change, CommandSpec, Done, HostError, HostErrorKind, Observed, PROTOCOL_VERSION, Read, Request,
    Response,
};
use crate::limits::{HOST_FRAME_BYTES_MAX, PACKAGES_TIMEOUT_MS, PARTS_IN_FLIGHT_MAX};

/// What an answer may take beyond the times that its instructions name: transfer, disks.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// What reading a snapshot of any size takes at most.
const SNAPSHOT_TIME: Duration = Duration::from_secs(1800);

/// What a command takes at most that names no time.
const COMMAND_TIME: Duration = Duration::from_secs(600);

/// Room in a frame for what surrounds the changes.
const FRAME_MARGIN_BYTES: usize = 64;

/// A [`Session`] over a [`Pipe`].
pub(crate) struct FrameSession {
    name: String,
    pipe: Pipe,
    round_trips: u64,
    lost: Option<RemoteError>,
}

impl FrameSession {
    /// A session over a pipe whose far end is an executor that awaits the greeting, or, when
    /// `greeted`, was sent it already.
    pub(crate) async fn open(
        name: &str,
        pipe: Pipe,
        greeted: bool,
        limit: Duration,
    ) -> Result<Self, RemoteError> {
        let mut session = Self { name: name.to_owned(), pipe, round_trips: 0, lost: None };
        if !greeted {
            session.send(&greeting()).await?;
        }
        let answer = session.receive(limit).await?;
        let Response::Welcome { protocol, version } = answer else {
            return Err(session.misunderstood());
        };
        if protocol != PROTOCOL_VERSION {
            return Err(RemoteError::Executor {
                message: format!(
                    "the executor on {name} (version {version}) speaks protocol {protocol}, this \
                     program {PROTOCOL_VERSION}"
                ),
                hint: Some("use the same version on both sides".to_owned()),
            });
        }
        Ok(session)
    }

    /// Before a request: the stream is where a message begins. Until the answer is there it counts as
    /// lost: a caller that stops waiting leaves it in the middle.
    fn begin(&mut self) -> Result<(), RemoteError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        self.lost = Some(RemoteError::Unreachable {
            message: format!("the session with {} was interrupted", self.name),
            hint: None,
        });
        self.round_trips += 1;
        Ok(())
    }

    /// Sends the parts of a file, some before the first is answered. After one that failed no more are
    /// sent.
    async fn parts(&mut self, mut parts: Parts) -> Result<Result<(), HostError>, RemoteError> {
        let (mut under_way, mut result) = (0, Ok(()));
        loop {
            let next = match parts.next().await {
                Ok(next) => next.filter(|_| result.is_ok()),
                Err(error) => {
                    result = result.and(Err(error));
                    None
                }
            };
            while under_way > 0 && (next.is_none() || under_way == PARTS_IN_FLIGHT_MAX) {
                // What follows a part that failed fails for that reason alone: the first counts.
                result = result.and(self.part_answer().await?);
                under_way -= 1;
            }
            let Some(part) = next.filter(|_| result.is_ok()) else {
                if under_way == 0 {
                    return Ok(result);
                }
                continue;
            };
            self.send(&part.request).await?;
            self.transmit(&part.bytes).await?;
            under_way += 1;
        }
    }

    async fn part_answer(&mut self) -> Result<Result<(), HostError>, RemoteError> {
        match self.receive(ANSWER_TIME).await? {
            Response::Changed(mut answers) if answers.len() == 1 => {
                Ok(answers.pop().unwrap_or(Ok(Done::Ok)).map(|_| ()))
            }
            _ => Err(self.misunderstood()),
        }
    }

    async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Response, RemoteError> {
        self.begin()?;
        let answer = async {
            self.send(request).await?;
            self.receive(limit).await
        };
        let answer = answer.await;
        self.lost = answer.as_ref().err().cloned();
        answer
    }

    async fn send(&mut self, request: &Request) -> Result<(), RemoteError> {
        let body = frame::encode(request).map_err(|error| self.unsendable(&error))?;
        let framed = frame::framed(&body).map_err(|error| self.unsendable(&error))?;
        self.transmit(&framed).await
    }

    /// Sends bytes as they are.
    async fn transmit(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        let ended = gone(self.pipe.said.clone());
        let written = timeout(ANSWER_TIME, async {
            self.pipe.input.write_all(bytes).await?;
            self.pipe.input.flush().await
        });
        let reason = tokio::select! {
            biased;
            written = written => match written {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes no more data".to_owned(),
            },
            () = ended => "it was cut while data was sent".to_owned(),
        };
        Err(self.lost(&reason).await)
    }

    async fn receive(&mut self, limit: Duration) -> Result<Response, RemoteError> {
        match timeout(limit, frame::read(&mut self.pipe.output)).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(self.lost("the executor ended").await),
            Ok(Err(error)) => Err(self.lost(&error.to_string()).await),
            Err(_) => {
                let reason = format!("no answer in {} s", limit.as_secs());
                Err(self.lost(&reason).await)
            }
        }
    }

    /// The loss with what the far end last said. It may be on its way still.
    async fn lost(&mut self, reason: &str) -> RemoteError {
        let ended = self.pipe.said.wait_for(|said| said.status.is_some());
        // Nothing more to learn is fine.
        let _ = timeout(Duration::from_millis(200), ended).await;
        let said = self.pipe.said.borrow().text();
        let message = match said.as_str() {
            "" => format!("lost the connection to {}: {reason}", self.name),
            said => format!("lost the connection to {}: {reason}: {said}", self.name),
        };
        let hint = "what was under way may or may not be done; run again, it looks first";
        RemoteError::Unreachable { message, hint: Some(hint.to_owned()) }
    }

    fn unsendable(&self, error: &FrameError) -> RemoteError {
        let message = format!("cannot send to {}: {error}", self.name);
        RemoteError::Executor { message, hint: None }
    }

    fn misunderstood(&self) -> RemoteError {
        RemoteError::Executor {
            message: format!("the executor on {} gives an answer to another question", self.name),
            hint: None,
        }
    }

    async fn read_all(
        &mut self,
        reads: Vec<Read>,
    ) -> Result<Vec<Result<Observed, HostError>>, RemoteError> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let limit = ANSWER_TIME + reads.iter().map(read_time).sum::<Duration>();
        let count = reads.len();
        match self.ask(&Request::Read(reads), limit).await? {
            Response::Read(results) if results.len() == count => Ok(results),
            _ => Err(self.misunderstood()),
        }
    }

    async fn change_all(
        &mut self,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<Done, HostError>>, RemoteError> {
        let mut results = Vec::with_capacity(changes.len());
        for run in upload::runs(changes) {
            let all_made = match run {
                Run::Together(changes) => self.change_together(changes, &mut results).await?,
                Run::Upload(upload) => {
                    let result = self.upload(upload).await?;
                    let made = result.is_ok();
                    results.push(result);
                    made
                }
            };
            if !all_made {
                break;
            }
        }
        Ok(results)
    }

    /// A file that is too long for a message, in parts; then it takes its place at once.
    async fn upload(&mut self, upload: Upload) -> Result<Result<Done, HostError>, RemoteError> {
        let parts = match upload.parts().await {
            Ok(parts) => parts,
            Err(error) => return Ok(Err(error)),
        };
        self.begin()?;
        let sent = self.parts(parts).await;
        self.lost = sent.as_ref().err().cloned();
        if let Err(error) = sent? {
            return Ok(Err(error));
        }
        let mut results = Vec::new();
        self.change_together(upload.finish(), &mut results).await?;
        Ok(results.into_iter().collect::<Result<Vec<_>, _>>().map(|_| Done::Ok))
    }

    /// Changes that fit in messages; whether all were made.
    async fn change_together(
        &mut self,
        changes: Vec<Change>,
        results: &mut Vec<Result<Done, HostError>>,
    ) -> Result<bool, RemoteError> {
        for batch in batches(changes) {
            if let Err(error) = fits(&batch) {
                results.push(Err(error));
                return Ok(false);
            }
            let limit = ANSWER_TIME + batch.iter().map(change_time).sum::<Duration>();
            let count = batch.len();
            let Response::Changed(answers) = self.ask(&Request::Change(batch), limit).await? else {
                return Err(self.misunderstood());
            };
            let all_made = answers.len() == count && answers.iter().all(Result::is_ok);
            if answers.len() > count || (answers.len() < count && answers.iter().all(Result::is_ok))
            {
                return Err(self.misunderstood());
            }
            results.extend(answers);
            if !all_made {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Session for FrameSession {
    fn read(
        &mut self,
        reads: Vec<Read>,
    ) -> BoxFuture<'_, Result<Vec<Result<Observed, HostError>>, RemoteError>> {
        self.read_all(reads).boxed()
    }

    fn change(
        &mut self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Result<Done, HostError>>, RemoteError>> {
        self.change_all(changes).boxed()
    }

    fn round_trips(&self) -> u64 {
        self.round_trips
    }
}

/// The first message to an executor.
pub(crate) fn greeting() -> Request {
    Request::Hello { protocol: PROTOCOL_VERSION }
}

/// Changes in order, as many together as fit in a frame: nearly always all.
fn batches(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut batches: Vec<Vec<Change>> = Vec::new();
    let mut room = 0;
    for change in changes {
        let size = size(&change);
        match batches.last_mut() {
            Some(batch) if size <= room => {
                batch.push(change);
                room -= size;
            }
            _ => {
                batches.push(vec![change]);
                room = (HOST_FRAME_BYTES_MAX - FRAME_MARGIN_BYTES).saturating_sub(size);
            }
        }
    }
    batches
}

fn size(change: &Change) -> usize {
    postcard::experimental::serialized_size(change).unwrap_or(usize::MAX)
}

/// A batch is too long only when it is one change that is too long.
fn fits(batch: &[Change]) -> Result<(), HostError> {
    match batch {
        [only] if size(only) > HOST_FRAME_BYTES_MAX - FRAME_MARGIN_BYTES => {
            let path = match only {
                Change::PutFile { path, .. } => path.as_str(),
                _ => "a change",
            };
            let limit = HOST_FRAME_BYTES_MAX >> 20;
            let message = format!("cannot send {path}: it has more than {limit} MiB");
            Err(HostError::new(HostErrorKind::TooLarge, message))
        }
        _ => Ok(()),
    }
}

fn command_time(spec: &CommandSpec) -> Duration {
    match spec.timeout_ms {
        0 => COMMAND_TIME,
        millis => Duration::from_millis(millis),
    }
}

fn read_time(read: &Read) -> Duration {
    match read {
        Read::Command(spec) => command_time(spec),
        Read::TcpProbe { timeout_ms, .. }
        | Read::Ready { timeout_ms, .. }
        | Read::K3sReady { timeout_ms, .. }
        | Read::Idle { timeout_ms } => Duration::from_millis(*timeout_ms),
        Read::Snapshot { .. } => SNAPSHOT_TIME,
        _ => Duration::ZERO,
    }
}

fn change_time(change: &Change) -> Duration {
    match change {
        Change::Run(spec) => command_time(spec),
        Change::Service { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
        Change::UnpackSnapshot { .. } => SNAPSHOT_TIME,
        // The lists of what there is may have to be fetched between two tries.
        Change::Packages { .. } => Duration::from_millis(3 * PACKAGES_TIMEOUT_MS),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::host::protocol::FileContent;

    fn put(length: usize) -> Change {
        Change::PutFile {
            path: "/x".to_owned(),
            content: FileContent::Bytes(Bytes::from(vec![0; length])),
            mode: 0o600,
            owner: None,
            group: None,
            backup: false,
            validate: Vec::new(),
        }
    }

    #[test]
    fn changes_travel_together_as_far_as_a_frame_goes() {
        let third = HOST_FRAME_BYTES_MAX / 3;
        let sizes = |changes: Vec<Change>| -> Vec<usize> {
            batches(changes).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes((0..100).map(|_| put(10)).collect()), [100]);
        assert_eq!(sizes((0..5).map(|_| put(third)).collect()), [2, 2, 1]);
        assert!(batches(Vec::new()).is_empty());
        for batch in batches((0..5).map(|_| put(third)).collect()) {
            assert!(frame::encode(&Request::Change(batch)).is_ok());
        }
        assert!(fits(&[put(HOST_FRAME_BYTES_MAX)]).is_err());
    }
}
