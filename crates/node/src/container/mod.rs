//! Containers: images from the registry, and replicas run from them by an OCI runtime.
//!
//! [`image::ImageStore`] turns a digest into an [`image::Image`] (verified, unpacked, shared); [`runner::ContainerRunner`] turns
//! that and a [`bundle::Workload`] into a running [`runner::Container`]. What a container may do is written in [`bundle`].

#[cfg(test)]
pub(crate) mod attacks;
pub mod bundle;
pub mod digest;
#[cfg(test)]
pub(crate) mod fake;
pub mod fetch;
#[cfg(test)]
pub(crate) mod golden;
pub mod image;
pub mod manifest;
pub(crate) mod remove_tree;
pub mod rootfs;
pub mod runner;
pub mod runtime;
mod seccomp;
pub mod unpack;
pub mod user;
