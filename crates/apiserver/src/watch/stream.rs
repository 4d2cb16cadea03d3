//! The stream of one watcher.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::events::Encoder;
use super::too_old;
use crate::body::BoxError;
use crate::cache::Cache;
use crate::cache::change::{Change, EventType};
use crate::cache::kind::KindCache;
use crate::cache::object::CachedObject;
use crate::verbs::Selection;

/// Changes taken from the history at once: bounds how long the history is locked.
const BATCH: usize = 256;
/// Bytes joined into one piece; beyond it a piece is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait for the connection. More would only hold memory: the history is the queue.
const PIECES: usize = 2;
/// Between bookmarks, as in Kubernetes.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// So long before the timeout a last bookmark is sent.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// After the timeout, for a client to take what was sent.
const SLACK: Duration = Duration::from_secs(30);

/// What a watcher needs.
pub(super) struct Watcher {
    pub(super) kind: Arc<KindCache>,
    pub(super) cache: Arc<Cache>,
    pub(super) changed: watch::Receiver<u64>,
    pub(super) selection: Selection,
    pub(super) encoder: Encoder,
    pub(super) cursor: u64,
    pub(super) begin: u64,
    pub(super) with_bookmarks: bool,
    pub(super) ends_initial: bool,
    pub(super) stopping: CancellationToken,
}

/// How a change looks through a selection.
fn seen_as(selection: &Selection, change: &Change) -> Option<EventType> {
    let before = change.previous.as_ref().is_some_and(|it| selection.matches(it));
    let after = change.current.as_ref().is_some_and(|it| selection.matches(it));
    match (before, after) {
        (false, false) => None,
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
    }
}

impl Watcher {
    /// Sends the initial state, then changes until the timeout.
    pub(super) fn into_stream(
        self,
        first: Vec<Arc<CachedObject>>,
        timeout: Duration,
    ) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            // An error says that the client has gone; one that is there but takes nothing is not waited for for ever.
            let _ = tokio::time::timeout(timeout + SLACK, self.run(first, timeout, &sender)).await;
        });
        ReceiverStream::new(receiver)
    }

    async fn run(mut self, first: Vec<Arc<CachedObject>>, timeout: Duration, out: &Sender) -> Result<(), Gone> {
        let deadline = Instant::now() + timeout;
        let mut piece = Vec::new();
        for object in first {
            piece.extend_from_slice(&self.encoder.initial(&object));
            if piece.len() >= PIECE_BYTES {
                send(out, &mut piece).await?;
            }
        }
        if self.ends_initial {
            piece.extend_from_slice(&self.encoder.bookmark(self.begin, true));
        }
        send(out, &mut piece).await?;
        let mut bookmarks = interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last_bookmark = tokio::time::sleep_until(if timeout > LAST_BOOKMARK {
            deadline - LAST_BOOKMARK
        } else {
            deadline + timeout
        });
        tokio::pin!(last_bookmark);
        let mut had_last = false;
        let stopping = self.stopping.clone();
        loop {
            // Read before waiting: what came meanwhile has marked the receiver.
            self.changed.borrow_and_update();
            while self.forward(out).await? {}
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return Ok(()) },
                _ = bookmarks.tick(), if self.with_bookmarks => self.mark(out).await?,
                () = &mut last_bookmark, if self.with_bookmarks && !had_last => {
                    had_last = true;
                    self.mark(out).await?;
                }
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                () = stopping.cancelled() => return Ok(()),
                () = out.closed() => return Err(Gone),
            }
        }
    }

    /// Sends a bookmark, unless changes wait that it would skip.
    async fn mark(&mut self, out: &Sender) -> Result<(), Gone> {
        let revision = self.cache.revision();
        while self.forward(out).await? {}
        let mut piece = self.encoder.bookmark(revision.max(self.begin), false).to_vec();
        send(out, &mut piece).await
    }

    /// Sends what has changed; whether there may be more.
    async fn forward(&mut self, out: &Sender) -> Result<bool, Gone> {
        let changes = match self.kind.changes_from(self.cursor, BATCH) {
            Ok(changes) => changes,
            Err(oldest) => {
                let mut piece = self.encoder.error(&too_old(self.begin, oldest)).to_vec();
                send(out, &mut piece).await?;
                return Err(Gone);
            }
        };
        let mut piece = Vec::new();
        let is_full = changes.len() == BATCH;
        let mut single = None;
        for change in &changes {
            self.cursor += 1;
            if change.revision <= self.begin {
                continue;
            }
            let Some(event) = seen_as(&self.selection, change) else { continue };
            let line = self.encoder.change(change, event);
            if changes.len() == 1 {
                single = Some(line);
                break;
            }
            piece.extend_from_slice(&line);
            if piece.len() >= PIECE_BYTES {
                send(out, &mut piece).await?;
            }
        }
        match single {
            // Shared with all other watchers, not copied.
            Some(line) => out.send(Ok(line)).await.map_err(|_| Gone)?,
            None => send(out, &mut piece).await?,
        }
        Ok(is_full)
    }
}

type Sender = mpsc::Sender<Result<Bytes, BoxError>>;

/// The client has closed the stream, or it was ended.
struct Gone;

async fn send(out: &Sender, piece: &mut Vec<u8>) -> Result<(), Gone> {
    if piece.is_empty() {
        return Ok(());
    }
    out.send(Ok(std::mem::take(piece).into())).await.map_err(|_| Gone)
}
