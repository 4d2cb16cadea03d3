//! Buckets of histograms: few enough to be cheap, and dense where the platform's usual values lie.

use prometheus_client::metrics::histogram::Histogram;

/// Seconds of a request: those of Kubernetes' API server up to 10 s, and some below 5 ms, where most requests end.
const REQUEST: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds of a transaction or a sync.
const STORAGE: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Seconds of work in the background: a reconciliation, a wait in a queue, the start of a container or a guest, a pull of an image.
const WORK: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A histogram of the seconds of requests.
pub fn request() -> Histogram {
    Histogram::new(REQUEST)
}

/// A histogram of the seconds of storage operations.
pub fn storage() -> Histogram {
    Histogram::new(STORAGE)
}

/// A histogram of the seconds of work in the background.
pub fn work() -> Histogram {
    Histogram::new(WORK)
}
