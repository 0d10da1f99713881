//! A real S3 server (moto) on a loopback address, for as long as the value lives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::wait_for;

/// Port it listens on.
const PORT: u16 = 9000;

/// A running S3 server with one bucket.
pub struct S3 {
    child: Child,
    /// Its address.
    pub address: String,
    /// The bucket.
    pub bucket: &'static str,
}

impl S3 {
    /// Starts one on a loopback address. `None`, and a word about it, when there is no server here:
    /// `K3SUP_TEST_S3` names the program, else it is where `.ci/s3 target/s3` puts it.
    pub fn start(address: &str) -> Option<Self> {
        Self::start_with(address, &[])
    }

    /// The same, where nobody's keys are right once the bucket is made.
    pub fn start_guarded(address: &str) -> Option<Self> {
        Self::start_with(address, &[("INITIAL_NO_AUTH_ACTION_COUNT", "1")])
    }

    fn start_with(address: &str, env: &[(&str, &str)]) -> Option<Self> {
        let usual = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/s3/bin/moto_server");
        let program = std::env::var_os("K3SUP_TEST_S3").map_or(usual, PathBuf::from);
        if !program.is_file() {
            eprintln!(
                "SKIPPED: no S3 server: run `.ci/s3 target/s3`, or name one in K3SUP_TEST_S3"
            );
            return None;
        }
        let child = Command::new(program)
            .args(["-H", address, "-p", &PORT.to_string()])
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the S3 server starts");
        let s3 = Self { child, address: address.to_owned(), bucket: "backups" };
        wait_for("the S3 server to make a bucket", || {
            let (status, _) = s3.ask("PUT", "/backups")?;
            (status == 200).then_some(())
        });
        Some(s3)
    }

    /// `host:port`.
    pub fn endpoint(&self) -> String {
        format!("{}:{PORT}", self.address)
    }

    /// Names of all objects.
    pub fn objects(&self) -> Vec<String> {
        let (_, text) = self.ask("GET", "/backups").expect("a list");
        let keys = text.split("<Key>").skip(1).filter_map(|part| part.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }

    /// Ends it: nothing listens there any more.
    pub fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// One request without a body; moto takes it unsigned.
    pub fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.endpoint()).ok()?;
        let host = self.endpoint();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}
