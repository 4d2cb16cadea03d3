//! One module a group of commands.

mod arguments;
pub mod compute;
pub mod iam;
mod list;
mod logs;
mod placement_group;
mod power;
pub mod registry;
pub mod run;
mod ssh;
