//! Containers: images from the registry, and replicas run from them by an OCI runtime.
pub mod digest;
#[cfg(test)]
pub(crate) mod fake;
pub mod fetch;
pub mod image;
pub mod manifest;
pub mod unpack;
pub mod user;
