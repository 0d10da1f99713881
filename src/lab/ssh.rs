//! A lab host's SSH server: russh with the host's own key, for the lab's one client key.
//!
//! It runs commands (`exec`) as the present user, and nothing else: no terminal, no forwarding.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::ROOT_VARIABLE;

/// Accepts connections until the process ends.
pub(super) async fn serve(
    listener: TcpListener,
    host_key: PrivateKey,
    client_key: PublicKey,
    root: PathBuf,
) {
    let config = Arc::new(Config {
        keys: vec![host_key],
        auth_rejection_time_initial: Some(Duration::ZERO),
        nodelay: true,
        inactivity_timeout: None,
        ..Config::default()
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, for example: others may be freed soon.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Latency is the cost of a frame protocol; without it a round trip still works.
        let _ = stream.set_nodelay(true);
        let connection =
            Connection { client_key: client_key.clone(), root: root.clone(), channel: None };
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            match russh::server::run_stream(config, stream, connection).await {
                Ok(session) => {
                    if let Err(error) = session.await {
                        tracing::debug!(%error, "connection ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "handshake failed"),
            }
        });
    }
}

/// One client's connection.
struct Connection {
    client_key: PublicKey,
    root: PathBuf,
    channel: Option<Channel<Msg>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = key.public_key.key_data() == self.client_key.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let channel = self.channel.take().filter(|channel| channel.id() == id);
        let child = String::from_utf8(command.to_vec()).ok().map(|text| shell(&self.root, &text));
        match (channel, child) {
            (Some(channel), Some(Ok(child))) => {
                session.channel_success(id)?;
                tokio::spawn(carry(channel, child));
            }
            _ => session.channel_failure(id)?,
        }
        Ok(())
    }
}

/// Starts a command as sshd does: by the shell, in the home directory, with a small environment.
fn shell(root: &Path, command: &str) -> std::io::Result<Child> {
    let home = root.join("root");
    Command::new("/bin/sh")
        .args(["-c", command])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("USER", std::env::var_os("USER").unwrap_or_default())
        .env("HOME", &home)
        .env("TMPDIR", root.join("tmp"))
        .env(ROOT_VARIABLE, root)
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Carries bytes between the channel and the command until both are done.
async fn carry(channel: Channel<Msg>, mut child: Child) {
    let (mut from_client, to_client) = channel.split();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else { return };
    let input = tokio::spawn(async move { feed(&mut from_client, stdin).await });
    let (mut out, mut err) = (to_client.make_writer(), to_client.make_writer_ext(Some(1)));
    tokio::join!(pump(stdout, &mut out), pump(stderr, &mut err));
    let status = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(255);
    input.abort();
    finish(&to_client, u32::try_from(status).unwrap_or(255)).await;
}

/// Writes what the client sends to the command. When the client goes away, its input ends, which
/// ends the executor.
async fn feed(from_client: &mut ChannelReadHalf, mut stdin: tokio::process::ChildStdin) {
    let mut reader = from_client.make_reader();
    // A command that closes its input early is its own business.
    let _ = tokio::io::copy(&mut reader, &mut stdin).await;
    let _ = stdin.shutdown().await;
}

async fn pump(mut from: impl AsyncRead + Unpin, to: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    let mut buffer = vec![0_u8; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..length) else { return };
        if to.write_all(bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Tells the exit status and closes. The client may be gone: then nobody needs to know.
async fn finish(to_client: &ChannelWriteHalf<Msg>, status: u32) {
    let _ = to_client.exit_status(status).await;
    let _ = to_client.eof().await;
    let _ = to_client.close().await;
}
