//! Host agent: machines, disks, containers, host network.
pub mod agent;
pub mod container;
pub mod dial;
pub mod net;
pub mod shim;
pub mod tunnel;
pub mod image;
pub mod seed;
pub mod volume;
pub mod machine;
