//! What the control role does, free of sockets, files and keys: the kinds with their rules, who may do what, what every cloud
//! starts with, and all controllers. `evrocd` runs it over TLS, `evroc-testkit` in the process of a test.

pub mod access;
pub mod controllers;
pub mod kinds;
mod refusals;
pub mod seed;
pub mod tokens;
pub mod views;
