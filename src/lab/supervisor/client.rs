//! Asking a lab host's supervisor, from the executor that runs on that host.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub use super::{Request, Response};
use crate::lab::paths::supervisor_socket;

/// Sends one request to the supervisor of the host whose directory is `root` and waits at most
/// `timeout` for the answer.
pub fn call(root: &Path, request: &Request, timeout: Duration) -> io::Result<Response> {
    let mut stream = UnixStream::connect(supervisor_socket(root))?;
    stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor hung up")),
        Ok(_) => Ok(serde_json::from_str(&answer)?),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the supervisor did not answer in time"))
        }
        Err(error) => Err(error),
    }
}
