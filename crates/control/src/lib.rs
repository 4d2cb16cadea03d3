//! The control role, free of sockets, files and keys: the kinds with their rules, authorisation, the seed of every
//! cloud, streams, what the registry needs of the API, and all controllers. `evrocd` runs it over TLS, `evroc-testkit` in the process of a test.

pub mod access;
pub mod controllers;
pub mod kinds;
mod metrics;
mod refusals;
pub mod registry;
pub mod seed;
pub mod streams;
pub mod tokens;
pub mod views;
