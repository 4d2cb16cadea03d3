//! The process model, with real processes: a supervisor of a random instance, its roles, and a sleeping process under a shim.
//!
//! Needs root, as `evrocd` does. Everything carries the instance's random name and is removed at the end, also when a test fails.

mod certificates;
mod client;
mod fixture;
mod monitoring;
mod revocation;
mod roles;
mod start;
mod store;
mod supervisor;
mod traces;
mod users;
mod workload;
