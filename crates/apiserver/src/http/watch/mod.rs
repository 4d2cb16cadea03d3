//! `watch`: a stream of changes, read by each watcher from the shared history of its kind.
//!
//! ```text
//!   initial events (if any) ──► [bookmark: initial-events-end] ──► changes, bookmarks … ──► end at the timeout,
//!                                                                                          or ERROR 410 if it lags
//! ```
//! A watcher has no queue of its own, only a position in the history: a watcher that is too slow falls out of the history and
//! gets an error; clients then list again. A change is encoded once for all watchers that see it as the same event.

mod events;
mod stream;

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};

use crate::http::request::query::revision_parameter;
use crate::http::respond::{self, shape};
use crate::http::verbs::call::Call;
use crate::http::verbs::selection::{PageBounds, Selection};
use crate::object::body::{self, ResponseBody};
use crate::object::error::ApiError;
use crate::state::cache::kind::TooOld;

use events::Encoder;
use stream::Watcher;

/// The minimum duration of a watch without `timeoutSeconds`; the maximum is twice as long, so that clients do not reconnect all
/// at once. As in Kubernetes.
const MIN_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The longest watch. Kubernetes takes any `timeoutSeconds`, and lets a watch end earlier at any time: clients begin a new one where it
/// ended, and so show that they may still see the objects they watch.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Returns the 410 for a watch that begins before the history.
fn too_old(revision: u64, oldest: TooOld) -> ApiError {
    ApiError::expired(format!("too old resource version: {revision} ({})", oldest.oldest))
}

/// Streams changes.
pub(crate) async fn watch(call: &Call) -> Result<Response<ResponseBody>, ApiError> {
    let query = &call.query;
    if !shape::is_streamable(call.accepted) {
        return Err(ApiError::not_acceptable("application/json"));
    }
    let selection = Selection::parse(&call.registered, &call.info, query)?;
    let revision = revision_parameter(query)?;
    let with_bookmarks = query.flag("allowWatchBookmarks");
    let initial = query.optional_flag("sendInitialEvents");
    let cache = call.shared().cache.clone();
    let kind = cache.kind(&call.registered.storage).clone();
    match revision {
        // The newest state, for clients that give no revision.
        None => {
            cache.catch_up().await?;
        }
        Some(0) => {}
        Some(at_least) if initial == Some(true) => cache.wait_for(at_least).await?,
        Some(_) => {}
    }
    let wants_state = initial.unwrap_or(revision.unwrap_or_default() == 0);
    let encoder = Encoder::new(call, query)?;
    let (first, begin) = if wants_state {
        let page = selection.page(&cache, PageBounds::default()).map_err(|oldest| too_old(0, oldest))?;
        (page.items, page.revision)
    } else {
        (Vec::new(), revision.filter(|it| *it > 0).unwrap_or_else(|| cache.revision()))
    };
    let cursor = kind.cursor_after(begin).map_err(|oldest| too_old(begin, oldest));
    let cursor = match cursor {
        Ok(cursor) => cursor,
        // As in Kubernetes, the stream begins and its only event is the error.
        Err(error) => {
            let line = encoder.error(&error);
            let only = futures::stream::iter([Ok(line)]);
            return Ok(respond::with_type(
                StatusCode::OK,
                HeaderValue::from_static("application/json"),
                body::stream(only),
            ));
        }
    };
    let timeout = match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(MAX_TIMEOUT),
        _ => MIN_TIMEOUT.mul_f64(1.0 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0),
    };
    let timeout = timeout.min(call.rest_of_credential());
    let watcher = Watcher {
        changed: kind.subscribe(),
        kind,
        cache,
        selection,
        encoder,
        cursor,
        begin,
        with_bookmarks,
        // Also for clients that request the initial state without `sendInitialEvents`, as in Kubernetes.
        ends_initial: wants_state && with_bookmarks,
        stopping: call.shared().stopping.clone(),
    };
    let stream = watcher.into_stream(first, timeout);
    Ok(respond::with_type(StatusCode::OK, HeaderValue::from_static("application/json"), body::stream(stream)))
}
