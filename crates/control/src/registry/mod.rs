//! The registry inside the cloud: authorisation of push and pull, credentials for it, and queries of controllers.

pub mod access;
pub mod credentials;
pub mod images;
