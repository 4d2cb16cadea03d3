//! Metrics of a process: families with typed labels, handles for hot paths, and the OpenMetrics text of all of them.
//!
//! ```text
//! a crate ── registers families once ──▶ Registry ── text() ──▶ GET /metrics, or the answer to control
//!    └── resolves a handle (Counter, Gauge, Histogram) for a label set, and keeps it where requests pass
//! ```
//! Rules, so that the number of series is bounded by what exists and not by what clients send:
//! - A label is an enum, a status code, or the name of an object or kind that exists ([`Text`]); never a path, a host name or a verb as a
//!   client wrote it. What is unknown is `other`.
//! - The owner of series for an object removes them with the object.
//! - What is a number of things that exist (objects, guests, connections) is read when it is asked for ([`Registry::at_scrape`]) and not
//!   counted twice.
//!
//! A crate whose values belong to an instance (an API server, a gateway) takes a [`Registry`]; loops of which a process has one use
//! [`Registry::process`]. A process is one role, so both end in one text.
//!
//! [`spans`] are for a collector of traces.

pub mod buckets;
pub mod controllers;
mod label;
mod process;
pub mod read;
mod registry;
mod scrape;
pub mod spans;
#[cfg(test)]
mod tests;

pub use label::{Text, encode_label};
pub use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
pub use registry::{CONTENT_TYPE, Registry};
pub use scrape::Scrape;

/// Histograms by label set, all with the same buckets.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
/// Counters by label set.
pub type Counters<L> = Family<L, Counter>;
/// Gauges by label set.
pub type Gauges<L> = Family<L, Gauge>;

/// A gauge that is one higher until this value is dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Raises the gauge.
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
