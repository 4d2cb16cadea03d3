//! Controllers for virtual machines, disks and placement: the control side, free of any host.
//!
//! A Disk becomes a Volume on a host; a VirtualMachine that should run becomes a Machine on the host of its volumes. The
//! host's agent carries both out and reports; see ARCHITECTURE.md.

pub mod disk;
pub mod schedule;
pub mod virtual_machine;

use evroc_controller::Context;

/// Runs every controller of this crate until the process ends.
pub async fn run(context: Context) {
    tokio::join!(disk::run(context.clone()), virtual_machine::run(context));
}
