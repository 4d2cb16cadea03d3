//! The behaviour of Kubernetes with custom resources, tested over HTTP on the server that the environment names
//! (`evroc_api_suite::server`).
//!
//! A test is right when the original passes it: `make test-reference`.

mod crud;
mod discovery;
mod history;
mod lists;
mod patches;
mod sequences;
mod support;
mod validation;
mod watches;
