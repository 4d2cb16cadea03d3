//! `evrocd status`: the processes, their addresses, the machine's free resources.

pub mod gather;
pub mod machine;
pub mod report;
pub mod text;
pub mod workloads;
