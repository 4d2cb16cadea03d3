//! The supervisor's socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::Event;
use super::protocol::{Reply, Request};
use crate::roles::link::line;

/// Longest request in bytes.
const LONGEST: u64 = 4096;
/// How long a client gets to send its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many clients are served at a time; more wait to be accepted.
const CLIENTS: u32 = 32;
/// How long the supervisor waits at its end for clients to read its last message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A client's request.
pub struct Asked {
    /// What.
    pub request: Request,
    /// Whether the client is root.
    pub is_privileged: bool,
    /// Lines of the answer; dropping it ends the connection.
    pub reply: mpsc::Sender<Reply>,
}

/// Answers that are being written.
pub struct Answers(Arc<Semaphore>);

impl Answers {
    /// Waits until every answer has reached its client, for a supervisor that is about to end.
    pub async fn written(&self) {
        let all = self.0.acquire_many(CLIENTS);
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
    }
}

/// Serves the socket at `path`. The instance's lock is held, so an existing file is a dead supervisor's.
pub fn listen(path: &Path, queue: mpsc::Sender<Event>) -> anyhow::Result<Answers> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .with_context(|| format!("cannot change the mode of {}", path.display()))?;
    let places = Arc::new(Semaphore::new(CLIENTS as usize));
    let answers = Answers(places.clone());
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let queue = queue.clone();
            tokio::spawn(async move {
                serve(stream, queue).await;
                drop(place);
            });
        }
    });
    Ok(answers)
}

async fn serve(stream: UnixStream, queue: mpsc::Sender<Event>) {
    let is_privileged = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
    let (read, mut write) = stream.into_split();
    let mut text = String::new();
    let mut input = BufReader::new(read.take(LONGEST));
    match tokio::time::timeout(PATIENCE, input.read_line(&mut text)).await {
        Ok(Ok(count)) if count > 0 => {}
        _ => return,
    }
    let (reply, mut replies) = mpsc::channel(16);
    match serde_json::from_str(&text) {
        Ok(request) => {
            if queue.send(Event::Asked(Asked { request, is_privileged, reply })).await.is_err() {
                return;
            }
        }
        Err(error) => {
            let message = format!("request not understood: {error}");
            let _ = write.write_all(line(&Reply::Error { message }).as_bytes()).await;
            return;
        }
    }
    while let Some(reply) = replies.recv().await {
        if write.write_all(line(&reply).as_bytes()).await.is_err() {
            return;
        }
    }
}
