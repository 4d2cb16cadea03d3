//! Revision -> Replica, as many as the autoscaler says.
//!
//! ```text
//!  Deploying ── first replica accepts connections ─▶ Ready (for good) ── no requests ─▶ zero replicas
//!      │ image missing, foreign, root                      ▲                               │ a request waits
//!      ▼ replica fails                                     └───────────────────────────────┘
//!  ImageNotFound, ImageForeign, RunsAsRoot, ContainerFailed
//! ```
//! Who writes what: this controller writes Revision.status (all but `load`, which is the gateway's) and Replica.spec;
//! the host writes Replica.status.

pub mod autoscale;
mod observe;
mod plan;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use run::run;
