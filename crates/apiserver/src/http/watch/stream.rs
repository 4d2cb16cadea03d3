//! The stream of one watcher.
//!
//! The connection polls it directly, without a task or queue of its own: an event to a thousand watchers causes a thousand
//! wake-ups, not two thousand, and a watcher whose client does not read stops.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::events::Encoder;
use super::too_old;
use crate::http::verbs::selection::Selection;
use crate::object::body::BoxError;
use crate::state::cache::Cache;
use crate::state::cache::change::{Change, EventType};
use crate::state::cache::kind::KindCache;
use crate::state::cache::object::CachedObject;

/// Changes taken from the history at once: limits how long the history is locked.
const BATCH: usize = 256;
/// The size above which a piece is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// The interval between bookmarks, as in Kubernetes.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The time before the timeout at which a last bookmark is sent.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// The inputs of a watcher.
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

/// Returns the type of event that a change is for a selection, if any.
fn event_type(selection: &Selection, change: &Change) -> Option<EventType> {
    let before = change.previous.as_ref().is_some_and(|it| selection.matches(it));
    let after = change.current.as_ref().is_some_and(|it| selection.matches(it));
    match (before, after) {
        (false, false) => None,
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
    }
}

/// When a bookmark is due; never for a watch without them.
struct Bookmarks {
    interval: Option<Interval>,
    /// `None` also when it has passed.
    last: Option<Pin<Box<Sleep>>>,
}

/// The state of a running watch.
struct Running {
    watcher: Watcher,
    initial: std::vec::IntoIter<Arc<CachedObject>>,
    end: Pin<Box<Sleep>>,
    bookmarks: Bookmarks,
    /// The revision of a bookmark that is due once all changes up to it are sent.
    mark: Option<u64>,
    is_over: bool,
    /// Kept across changes, because a new future would be queued again.
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Bookmarks {
    fn begin(timeout: Duration) -> Self {
        let now = Instant::now();
        let mut interval = interval_at(now + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last = (timeout > LAST_BOOKMARK).then(|| Box::pin(sleep_until(now + timeout - LAST_BOOKMARK)));
        Self { interval: Some(interval), last }
    }

    fn none() -> Self {
        Self { interval: None, last: None }
    }

    async fn due(&mut self) {
        let interval = async {
            match &mut self.interval {
                Some(interval) => drop(interval.tick().await),
                None => std::future::pending().await,
            }
        };
        let last = async {
            match &mut self.last {
                Some(last) => last.await,
                None => std::future::pending().await,
            }
        };
        let is_last = tokio::select! { () = interval => false, () = last => true };
        if is_last {
            self.last = None;
        }
    }
}

impl Watcher {
    /// The initial state, then changes until the timeout.
    pub(super) fn into_stream(
        self,
        first: Vec<Arc<CachedObject>>,
        timeout: Duration,
    ) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        let bookmarks = if self.with_bookmarks { Bookmarks::begin(timeout) } else { Bookmarks::none() };
        let end = Box::pin(tokio::time::sleep(timeout));
        let stopped = Box::pin(self.stopping.clone().cancelled_owned());
        let initial = first.into_iter();
        let running = Running { watcher: self, initial, end, bookmarks, mark: None, is_over: false, stopped };
        stream::unfold(running, |mut running| async move { Some((Ok(running.next().await?), running)) })
    }

    /// Returns changes up to the size of one piece; `None` if there are none. An error is the last line.
    fn forward(&mut self) -> Result<Option<Bytes>, Bytes> {
        loop {
            let changes = match self.kind.changes_from(self.cursor, BATCH) {
                Ok(changes) => changes,
                Err(oldest) => return Err(self.encoder.error(&too_old(self.begin, oldest))),
            };
            if changes.is_empty() {
                return Ok(None);
            }
            let mut piece = Piece::default();
            for change in &changes {
                self.cursor += 1;
                if change.revision <= self.begin {
                    continue;
                }
                let Some(event) = event_type(&self.selection, change) else { continue };
                piece.add(self.encoder.change(change, event));
                if piece.is_full() {
                    break;
                }
            }
            if let Some(piece) = piece.whole() {
                return Ok(Some(piece));
            }
        }
    }
}

/// Lines that are joined into one piece. A single line is shared with all other watchers, not copied.
#[derive(Default)]
struct Piece {
    lines: Vec<Bytes>,
    len: usize,
}

impl Piece {
    fn add(&mut self, line: Bytes) {
        self.len += line.len();
        self.lines.push(line);
    }

    fn is_full(&self) -> bool {
        self.len >= PIECE_BYTES
    }

    fn whole(mut self) -> Option<Bytes> {
        match self.lines.len() {
            0 | 1 => self.lines.pop(),
            _ => Some(self.lines.concat().into()),
        }
    }
}

impl Running {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.initial() {
            return Some(piece);
        }
        loop {
            let is_over = self.is_over || Instant::now() >= self.end.deadline();
            if is_over || self.watcher.stopping.is_cancelled() {
                return None;
            }
            // Marked as seen before reading, so that a change during the read wakes the receiver.
            self.watcher.changed.borrow_and_update();
            match self.watcher.forward() {
                Ok(Some(piece)) => return Some(piece),
                Ok(None) => {}
                Err(last) => {
                    self.is_over = true;
                    return Some(last);
                }
            }
            if let Some(revision) = self.mark.take() {
                return Some(self.watcher.encoder.bookmark(revision.max(self.watcher.begin), false));
            }
            tokio::select! {
                changed = self.watcher.changed.changed() => self.is_over = changed.is_err(),
                () = self.bookmarks.due() => self.mark = Some(self.watcher.cache.revision()),
                () = &mut self.end => self.is_over = true,
                () = &mut self.stopped => self.is_over = true,
            }
        }
    }

    /// A piece of the initial state, which ends with its bookmark.
    fn initial(&mut self) -> Option<Bytes> {
        let watcher = &mut self.watcher;
        let mut piece = Piece::default();
        for object in self.initial.by_ref() {
            piece.add(watcher.encoder.initial(&object));
            if piece.is_full() {
                return piece.whole();
            }
        }
        if std::mem::take(&mut watcher.ends_initial) {
            piece.add(watcher.encoder.bookmark(watcher.begin, true));
        }
        piece.whole()
    }
}
