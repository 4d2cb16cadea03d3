//! Whether a connection is in use: HTTP/2 has no limit of its own on how long a client may keep a connection without a request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use tokio::sync::Notify;

use crate::respond::ResponseBody;
use crate::time;

/// Counts the requests of a connection that are not answered to their end.
#[derive(Default)]
pub struct Activity {
    requests: AtomicUsize,
    /// Rung when a request begins or ends.
    changed: Notify,
}

/// A request under way; dropping it ends it.
pub struct Use(Arc<Activity>);

impl Activity {
    /// Counts a request until the returned value is dropped.
    pub fn begin(self: &Arc<Self>) -> Use {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
        Use(self.clone())
    }

    /// Returns when no request was under way for `time`.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.requests.load(Ordering::Acquire) == 0 {
                if time::timeout(time, changed).await.is_err() {
                    return;
                }
            } else {
                changed.await;
            }
        }
    }
}

impl Use {
    /// Keeps the request under way until the body has been sent or given up.
    pub fn until_the_end_of(self, body: ResponseBody) -> ResponseBody {
        Counted { body, _use: self }.boxed()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

struct Counted {
    body: ResponseBody,
    _use: Use,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
