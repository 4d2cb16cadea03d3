//! Requests connections to replicas from this host's node: the client half of `dial.sock`.
//!
//! A replica's network namespace has nothing but `lo`, so the node opens the connection inside it and hands over the file
//! descriptor. One JSON line requests, one answers, the descriptor rides on a good answer (`SCM_RIGHTS`):
//! ```text
//! -> {"replica":"6f1c…","port":8080}
//! <- {"ok":true}                      with one descriptor
//! <- {"ok":false,"reason":"refused","message":"…"}
//! ```
//! Requests on one connection are answered one after the other, so there are as many connections as requests at a time, and
//! idle ones are kept.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};

/// Idle connections kept. Fewer mean a connect (some 20 µs) more often; more only cost descriptors.
const MAX_IDLE: usize = 16;
/// The node's answers are far shorter.
const MAX_ANSWER: usize = 4096;

#[derive(Serialize)]
struct Request<'a> {
    replica: &'a str,
    port: u16,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// The reason why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The replica is not on this host, or not any more.
    #[error("connect to replica {replica}: {message}")]
    NotFound {
        /// Its uid.
        replica: String,
        /// The node's message.
        message: String,
    },
    /// The port has no listener: not ready yet, or just ending.
    #[error("connect to replica {replica}: {message}")]
    Refused {
        /// Its uid.
        replica: String,
        /// The node's message.
        message: String,
    },
    /// It listens, but does not accept.
    #[error("connect to replica {replica}: {message}")]
    Timeout {
        /// Its uid.
        replica: String,
        /// The node's message.
        message: String,
    },
    /// Any other answer of the node.
    #[error("connect to replica {replica}: {message}")]
    Failed {
        /// Its uid.
        replica: String,
        /// The node's message.
        message: String,
    },
    /// The node does not answer: it is restarting.
    #[error("request a connection from the node on {}", socket.display())]
    Node {
        /// The path of its socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Connects to replicas on this host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DialClient {
    socket: Arc<Path>,
    idle: Arc<Mutex<Vec<UnixStream>>>,
}

impl DialClient {
    /// A client of the node that listens at `socket`. Nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into(), idle: Arc::default() }
    }

    /// A TCP connection to `port` of the replica with this uid.
    pub async fn dial(&self, replica: &str, port: u16) -> Result<TcpStream, DialError> {
        let node = |source| DialError::Node { socket: self.socket.to_path_buf(), source };
        let mut line = serde_json::to_vec(&Request { replica, port }).map_err(|error| node(error.into()))?;
        line.push(b'\n');
        let (answer, fd) = self.ask(&line).await.map_err(node)?;
        if answer.ok {
            let fd = fd.ok_or_else(|| node(io::Error::other("the answer carries no descriptor")))?;
            let stream = StdTcpStream::from(fd);
            stream.set_nonblocking(true).map_err(node)?;
            return TcpStream::from_std(stream).map_err(node);
        }
        let (replica, message) = (replica.to_owned(), answer.message);
        Err(match answer.reason.as_str() {
            "not-found" => DialError::NotFound { replica, message },
            "refused" => DialError::Refused { replica, message },
            "timeout" => DialError::Timeout { replica, message },
            _ => DialError::Failed { replica, message },
        })
    }

    /// An idle connection may have died with an earlier node: then the next is tried, at last a new one. Asking twice is safe, a
    /// connection that was never received is closed by the kernel.
    async fn ask(&self, line: &[u8]) -> io::Result<(Answer, Option<OwnedFd>)> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let was_idle = idle.is_some();
            let mut stream = match idle {
                Some(stream) => stream,
                None => UnixStream::connect(&self.socket).await?,
            };
            match exchange(&mut stream, line).await {
                Ok(answer) => {
                    let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                    if idle.len() < MAX_IDLE {
                        idle.push(stream);
                    }
                    return Ok(answer);
                }
                Err(_) if was_idle => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn exchange(stream: &mut UnixStream, line: &[u8]) -> io::Result<(Answer, Option<OwnedFd>)> {
    stream.write_all(line).await?;
    let mut answer = Vec::new();
    let mut received = None;
    while answer.last() != Some(&b'\n') {
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        let (count, fd) = stream.async_io(Interest::READABLE, || receive(stream, &mut answer)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received = fd.or(received);
    }
    Ok((serde_json::from_slice(&answer)?, received))
}

fn receive(stream: &UnixStream, answer: &mut Vec<u8>) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut bytes = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    answer.extend_from_slice(&bytes[..message.bytes]);
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((message.bytes, fd))
}
