//! Host agent: machines, disks, containers, host network.
pub mod agent;
pub mod cgroup;
pub mod container;
pub mod dial;
pub mod drain_flag;
pub mod fuzzing;
#[cfg(test)]
mod golden;
pub mod image;
pub mod io;
pub mod machine;
mod metrics;
pub mod net;
pub mod owner;
pub mod pool;
pub mod seed;
pub mod shim;
mod text;
pub mod uid;
