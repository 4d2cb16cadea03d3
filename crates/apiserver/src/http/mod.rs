//! The third floor: a request from the connection to the response.

pub mod audit;
pub mod authn;
pub mod authz;
pub(crate) mod discovery;
pub mod flow;
pub mod health;
pub mod metrics;
pub mod mount;
pub(crate) mod request;
pub(crate) mod respond;
pub mod serve;
pub mod server;
pub(crate) mod verbs;
pub mod views;
pub(crate) mod watch;
