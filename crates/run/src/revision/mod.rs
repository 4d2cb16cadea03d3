//! Revision -> Replica, as many as the autoscaler says.
//!
//! ```text
//!  Deploying ── first replica accepts connections ─▶ Ready, and Proven for good ── no requests ─▶ zero replicas
//!      │ image missing, foreign, root                  │ ▲                                          │ a request waits
//!      ▼ replica fails                   replica fails ▼ └──────── a replica accepts connections ───┘
//!  ImageNotFound, ImageForeign, RunsAsRoot, ContainerExited: started again after a pause that doubles
//! ```
//! Requests go to a revision that is Proven, also while it is not Ready.
//! Who writes what: this controller writes Revision.status (all but `load`, which is the gateway's) and Replica.spec;
//! the host writes Replica.status. Order of writes: status first, then the steps; the digest of an image is recorded before anything
//! runs it.

mod autoscale;
mod observe;
mod plan;
mod restart;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use run::run;
