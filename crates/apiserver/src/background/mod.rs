//! The fourth floor: the server's own controllers. They write through the API, each with its own identity.

pub(crate) mod expiry;
pub(crate) mod gc;
mod measured;
pub(crate) mod namespaces;
pub(crate) mod quota;
pub(crate) mod revocations;
mod send;
