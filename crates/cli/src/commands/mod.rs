//! One module a group of commands.

pub mod compute;
pub mod iam;
mod list;
mod logs;
mod power;
pub mod registry;
pub mod run;
mod ssh;
