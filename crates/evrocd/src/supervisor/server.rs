//! The supervisor's socket.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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
/// How many of one user, root excepted, so that no local user can keep the operator waiting.
const CLIENTS_OF_A_USER: usize = 4;
/// How long the supervisor waits at its end for clients to read its last message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A client's request.
pub struct ClientRequest {
    /// The request.
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
    let users = Arc::new(Users::default());
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // A connection beyond its user's share, or without a known user, is closed.
            let Some(share) = stream.peer_cred().ok().and_then(|peer| users.enter(peer.uid())) else { continue };
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let queue = queue.clone();
            tokio::spawn(async move {
                serve(stream, queue).await;
                drop((place, share));
            });
        }
    });
    Ok(answers)
}

/// The connections of each user.
#[derive(Default)]
struct Users(Mutex<HashMap<u32, usize>>);

/// A connection's place among those of its user; dropping it frees the place.
struct Share {
    users: Arc<Users>,
    uid: u32,
}

impl Users {
    /// Returns a place, or none when the user has as many as allowed.
    fn enter(self: &Arc<Self>, uid: u32) -> Option<Share> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = users.entry(uid).or_default();
        if uid != 0 && *own >= CLIENTS_OF_A_USER {
            return None;
        }
        *own += 1;
        Some(Share { users: self.clone(), uid })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = users.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                users.remove(&self.uid);
            }
        }
    }
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
            if queue.send(Event::ClientRequest(ClientRequest { request, is_privileged, reply })).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_share_of_the_places_and_root_is_not_limited() {
        let users = Arc::new(Users::default());
        let places: Vec<Share> = std::iter::from_fn(|| users.enter(1000)).take(100).collect();
        assert_eq!(places.len(), CLIENTS_OF_A_USER);
        assert!(users.enter(1001).is_some());
        let root: Vec<Share> = std::iter::from_fn(|| users.enter(0)).take(100).collect();
        assert_eq!(root.len(), 100);
        drop((places, root));
        assert!(users.0.lock().unwrap().is_empty());
        assert!(users.enter(1000).is_some());
    }
}
