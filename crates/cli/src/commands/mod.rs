//! One module a group of commands.

pub mod compute;
mod logs;
pub mod registry;
pub mod run;
mod ssh;
