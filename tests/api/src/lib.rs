//! A suite over HTTP that knows no server: the same requests to ours and to Kubernetes' own server for custom resources.
//!
//! The tests are in `suite/`; the environment selects their server ([`server`]). The differential run
//! ([`differential`]) sends random sequences of requests to both and compares all that is answered; what it once found is kept
//! in `sequences/`, with the original's answers, and is replayed by the suite.

pub mod client;
pub mod differential;
pub mod server;
