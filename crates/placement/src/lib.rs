//! Chooses a host: one decision over the same facts for virtual machines, volumes and replicas.
//!
//! ```text
//!   Host, Machine, Replica, Volume ──watch──▶ Book (promises per host) ──facts──▶ choose (pure) ──▶ host, or why there is none
//! ```
//! [`choose`] is a pure function and only a proposal: a host's resources are taken in the store, in the transaction that creates the
//! object.
//! A refusal there is entered into the book ([`Book::refused`]), and the next choice is another host.

mod book;
mod choose;
mod facts;
#[cfg(test)]
mod tests;

pub use book::{Book, may_allow_more, may_make_room};
pub use choose::{Need, Spread, Unplaceable, choose};
pub use facts::{HostFacts, Promised, Room};

/// Writes bytes in GB of 1024 MB with one decimal: `20.1 GB`.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / f64::from(1 << 30))
}
