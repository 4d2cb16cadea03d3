//! `dial.sock`: the gateway requests a connection to a replica and receives its file descriptor.
//!
//! One JSON line requests, one answers, any number of times per connection, one after the other; a good answer carries the connected
//! socket (`SCM_RIGHTS`). The client is `evroc-gateway`'s module `dial`.
//! ```text
//! -> {"replica":"6f1c…","port":8080}
//! <- {"ok":true}                      with one descriptor
//! <- {"ok":false,"reason":"refused","message":"…"}
//! ```

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use super::Dialer;
use crate::net::netns::Netns;
use crate::uid::{InvalidUid, Uid};

/// A request is far shorter.
const MAX_LINE: u64 = 1024;
/// Within one host and one namespace a connect is answered at once, unless the backlog of the listener is full.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
struct Request {
    replica: String,
    port: u16,
}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// The reason why there is no connection, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reason {
    /// The replica is not on this host, or no longer.
    NotFound,
    /// Nothing listens on the port.
    Refused,
    /// The listener did not accept in time.
    Timeout,
    /// The request cannot be understood.
    Invalid,
    /// Anything else.
    Failed,
}

/// Answers on `dial.sock`.
pub struct DialServer {
    listener: UnixListener,
    folder: PathBuf,
    edge_uid: u32,
    dialer: Dialer,
}

impl DialServer {
    /// Listens at `socket` (replacing one that is left over). Replicas' namespaces are `replica-<uid>` in the folder `netns`; only
    /// Accepts requests of `edge_uid` and root only.
    pub fn bind(socket: &Path, netns: &Path, edge_uid: u32, dialer: Dialer) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        std::os::unix::fs::chown(socket, Some(edge_uid), None)?;
        Ok(Self { listener, folder: netns.to_owned(), edge_uid, dialer })
    }

    /// Serves until dropped, and with it every connection.
    pub async fn run(self) {
        let shared = Arc::new((self.folder, self.dialer));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: give others time to close some.
                    tracing::warn!(%error, "accept on dial.sock");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().map(|credentials| credentials.uid());
            if !matches!(uid, Ok(uid) if uid == 0 || uid == self.edge_uid) {
                tracing::warn!(?uid, "refuses a connection to dial.sock by another user");
                continue;
            }
            let shared = shared.clone();
            connections.spawn(async move {
                if let Err(error) = serve(stream, &shared.0, &shared.1).await {
                    tracing::debug!(%error, "connection on dial.sock ended");
                }
            });
        }
    }
}

async fn serve(stream: UnixStream, folder: &Path, dialer: &Dialer) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long or cut off"));
        }
        let (answer, connection) = match dial(&line, folder, dialer).await {
            Ok(connection) => (Answer { ok: true, reason: None, message: None }, Some(connection)),
            Err((reason, message)) => (Answer { ok: false, reason: Some(reason), message: Some(message) }, None),
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        send(reader.get_mut(), &bytes, connection.as_ref().map(AsFd::as_fd)).await?;
    }
}

async fn dial(line: &str, folder: &Path, dialer: &Dialer) -> Result<TcpStream, (Reason, String)> {
    let request: Request = serde_json::from_str(line).map_err(|error| (Reason::Invalid, error.to_string()))?;
    let uid: Uid = request.replica.parse().map_err(|error: InvalidUid| (Reason::Invalid, error.to_string()))?;
    let netns = Netns::open(&folder.join(format!("replica-{uid}"))).map_err(|error| {
        let reason = if error.is_not_found() { Reason::NotFound } else { Reason::Failed };
        (reason, format!("replica {uid} is not on this host"))
    })?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, request.port));
    match tokio::time::timeout(CONNECT_DEADLINE, dialer.connect(&Arc::new(netns), address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let reason = match error.kind() {
                io::ErrorKind::ConnectionRefused => Reason::Refused,
                io::ErrorKind::TimedOut => Reason::Timeout,
                _ => Reason::Failed,
            };
            Err((reason, format!("connect to port {}: {error}", request.port)))
        }
        Err(_) => Err((Reason::Timeout, format!("connect to port {}: the listener does not accept", request.port))),
    }
}

/// Sends `bytes`, the descriptor with the first of them.
async fn send(stream: &mut UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let sent = match fd {
        None => 0,
        Some(fd) => {
            stream
                .async_io(Interest::WRITABLE, || {
                    let fds = [fd];
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    control.push(SendAncillaryMessage::ScmRights(&fds));
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    Ok(sendmsg(&*stream, &[IoSlice::new(bytes)], &mut control, flags)?)
                })
                .await?
        }
    };
    stream.write_all(&bytes[sent..]).await
}
