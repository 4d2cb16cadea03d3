//! The identity of a caller: the type of the crate that reads credentials.

pub use evroc_iam::Identity;
