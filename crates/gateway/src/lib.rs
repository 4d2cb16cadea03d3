//! HTTPS data path: TLS, routing, holding requests at zero.
//!
//! ```text
//!  listener ─▶ sniff (server name of the TLS greeting)
//!                ├─ api. iam. console. registry. ─▶ copied byte for byte to control, which ends TLS itself
//!                └─ anything else ─▶ TLS ends here ─▶ proxy ─▶ table: host → revision → replica with fewest requests
//!                                                       │         ▲ none: the request waits, its revision is reported
//!                                                       ▼         │ as loaded, the autoscaler makes a replica
//!                                                    connect ─▶ the replica's port, inside its network namespace
//! ```
//! Invariants: a request is sent to a replica at most once unless it was certainly not received, or is safe to repeat; a
//! replica is let go only when no request is in it; a request's body is never held in memory as a whole.

mod activity;
mod admission;
pub mod connect;
pub mod dial;
mod drain;
mod follow;
mod forward;
mod load;
mod metrics;
mod proxy;
mod respond;
mod serve;
mod sniff;
mod table;
#[cfg(test)]
mod tests;
mod time;

pub use connect::{Dial, Stream};
pub use serve::{Gateway, GatewayTls, Settings};
