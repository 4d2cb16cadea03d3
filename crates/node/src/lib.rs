//! Host agent: machines, disks, containers, host network.
pub mod agent;
pub mod container;
pub mod dial;
pub mod image;
pub mod machine;
pub mod net;
pub mod seed;
pub mod shim;
pub mod tunnel;
pub mod volume;
