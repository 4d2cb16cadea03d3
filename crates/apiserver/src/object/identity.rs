//! The identity of a caller: the type of the crate that decides who somebody is.

pub use evroc_iam::Identity;
