//! Containers: images from the registry, and replicas run from them by an OCI runtime.
pub mod bundle;
pub mod digest;
#[cfg(test)]
pub(crate) mod fake;
pub mod fetch;
#[cfg(test)]
pub(crate) mod golden;
pub mod image;
pub mod manifest;
mod seccomp;
pub mod unpack;
pub mod user;
