//! The fourth floor: what the server does by itself. Its tasks write through the API, each as a caller of its own.

pub(crate) mod expiry;
pub(crate) mod gc;
pub(crate) mod namespaces;
pub(crate) mod quota;
mod send;
