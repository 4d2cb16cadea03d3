//! Spans: which part of a request or of a reconciliation took how long, for a collector of traces.
//!
//! A crate makes its spans with the macro [`span!`](crate::span) and knows no collector. The program that exports them installs a layer of
//! `tracing` for [`TARGET`] and, with [`propagate`], the functions that read and write the headers by which a trace goes on in another
//! process. Without that layer the spans are disabled where they are made, which costs the look at one atomic value.

use std::sync::OnceLock;

use http::HeaderMap;
use tracing::Span;

/// The target of all spans. No log shows them.
pub const TARGET: &str = "evroc::trace";

/// Makes a span for a collector of traces, as `tracing::span!` does. Fields have the names of OpenTelemetry's conventions where these know
/// them; `otel.name`, `otel.kind` and `otel.status_code` set what is no attribute.
#[macro_export]
macro_rules! span {
    ($($arguments:tt)*) => {
        $crate::spans::tracing::span!(target: $crate::spans::TARGET, $crate::spans::tracing::Level::TRACE, $($arguments)*)
    };
}

#[doc(hidden)]
pub use tracing;

/// How a trace goes on in another process: in the headers `traceparent` and `tracestate` of a request (W3C Trace Context).
#[derive(Clone, Copy, Debug)]
pub struct Propagation {
    /// Makes a span that has not begun the child of the one that the headers name.
    pub adopt: fn(&Span, &HeaderMap),
    /// Names a span in the headers, in the place of what they named.
    pub write: fn(&Span, &mut HeaderMap),
}

static PROPAGATION: OnceLock<Propagation> = OnceLock::new();

/// Installs the propagation of this process; the first one stays.
pub fn propagate(propagation: Propagation) {
    let _ = PROPAGATION.set(propagation);
}

/// Makes the current span, which has not begun, the child of the one that the headers of a request name. Does nothing in a process that
/// exports no spans.
pub fn adopt(headers: &HeaderMap) {
    if let Some(propagation) = PROPAGATION.get() {
        (propagation.adopt)(&Span::current(), headers);
    }
}

/// Names the current span in the headers of a request to another process. Does nothing in a process that exports no spans: what the headers
/// say goes on as it is.
pub fn write(headers: &mut HeaderMap) {
    if let Some(propagation) = PROPAGATION.get() {
        (propagation.write)(&Span::current(), headers);
    }
}
