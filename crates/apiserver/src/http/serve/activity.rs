//! Whether a connection is in use, and when it has been idle or unknown for too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use crate::http::authn::Peer;
use crate::object::body::{BoxError, ResponseBody};

/// The requests of one connection, from their head to the end of the answer.
#[derive(Debug)]
pub(super) struct Activity {
    begun: Instant,
    running: AtomicUsize,
    /// When the last one ended, in milliseconds after the beginning.
    ended_ms: AtomicU64,
}

/// A request that runs, until it is dropped.
pub(super) struct Running(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Activity { begun: Instant::now(), running: AtomicUsize::new(0), ended_ms: AtomicU64::new(0) })
    }

    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Waits until no request has run for this long. Requests do not wake it: it checks again at the earliest possible time.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let now = Instant::now();
            let since = match self.running.load(Ordering::Relaxed) {
                0 => self.begun + Duration::from_millis(self.ended_ms.load(Ordering::Relaxed)),
                _ => now,
            };
            if since + time <= now {
                return;
            }
            sleep_until(since + time).await;
        }
    }

    /// Waits until the connection should be closed: no request came for `idle`, or its caller is still unknown after `unknown`.
    pub(super) async fn exceeded(&self, peer: &Peer, idle: Duration, unknown: Duration) {
        let stays_unknown = async {
            sleep_until(self.begun + unknown).await;
            if peer.is_known() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.idle_for(idle) => {}
            () = stays_unknown => {}
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended_ms.fetch_max(ended, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, with the request that runs until it is sent.
pub(super) struct Tracked {
    pub(super) body: ResponseBody,
    pub(super) _running: Running,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(600);

    fn known() -> Peer {
        let peer = Peer::default();
        peer.note_known();
        peer
    }

    #[tokio::test]
    async fn unknown_callers_have_a_deadline_and_known_ones_may_be_idle_for_a_while() {
        Activity::new().exceeded(&Peer::default(), LONG, SHORT).await;
        Activity::new().exceeded(&known(), SHORT, LONG).await;
        let (activity, peer, other) = (Activity::new(), known(), Activity::new());
        tokio::select! {
            () = activity.exceeded(&peer, LONG, SHORT) => panic!("known callers have no deadline"),
            () = other.idle_for(3 * SHORT) => {}
        }
    }

    #[tokio::test]
    async fn a_connection_with_a_request_is_in_use() {
        let (activity, other) = (Activity::new(), Activity::new());
        let running = activity.begin();
        tokio::select! {
            () = activity.idle_for(SHORT) => panic!("a request runs"),
            () = other.idle_for(3 * SHORT) => {}
        }
        drop(running);
        activity.idle_for(SHORT).await;
        assert!(activity.begun.elapsed() >= 4 * SHORT, "the time counts from the end of the last request");
    }
}
