//! Controllers for virtual machines, disks and placement groups: the control side, free of any host.
//!
//! A VirtualMachine that should run becomes a Machine on a host, and those of its Disks that have no Volume yet get one there. The
//! host's agent carries both out and reports; see ARCHITECTURE.md.

mod context;
mod disk;
mod place;
mod placement_group;
mod reasons;
mod turns;
mod virtual_machine;

use std::sync::Arc;

use evroc_controller::{Context, Informers};
use evroc_placement::Book;

use context::Compute;

/// Runs every controller of this crate until the process ends.
pub async fn run(base: Context, informers: &Informers, book: Book) {
    let compute = Arc::new(Compute::new(base, informers, book));
    compute.ready().await;
    tokio::join!(disk::run(compute.clone()), placement_group::run(compute.clone()), virtual_machine::run(compute));
}
