//! Host agent: machines, disks, containers, host network.
pub mod container;
pub mod dial;
pub mod net;
pub mod shim;
