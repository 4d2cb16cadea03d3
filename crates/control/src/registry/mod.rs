//! The registry inside the cloud: who may push and pull, credentials for it, and what controllers ask it.

pub mod access;
pub mod credentials;
pub mod images;
