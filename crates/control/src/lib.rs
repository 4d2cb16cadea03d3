//! The control role, free of sockets, files and keys: the kinds with their rules, authorisation, the seed of every
//! cloud, and all controllers. `evrocd` runs it over TLS, `evroc-testkit` in the process of a test.

pub mod access;
pub mod controllers;
pub mod kinds;
mod refusals;
pub mod seed;
pub mod tokens;
pub mod views;
