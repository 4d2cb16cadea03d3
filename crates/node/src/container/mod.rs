//! Containers: images from the registry, and replicas run from them by an OCI runtime.
//!
//! [`image::ImageStore`] turns a digest into an [`image::Image`] (verified, unpacked, shared); [`runner::ContainerRunner`] turns
//! that and a [`bundle::Workload`] into a running [`runner::Container`]. The permissions of a container are in [`bundle`].

#[cfg(test)]
pub(crate) mod attacks;
pub mod bundle;
pub mod containers;
pub mod digest;
#[cfg(test)]
pub(crate) mod fake;
pub mod fetch;
pub mod image;
pub mod manifest;
pub mod memory;
mod program;
pub(crate) mod remove_tree;
pub mod rootfs;
pub mod runner;
pub mod runtime;
mod seccomp;
mod stop_signal;
pub mod unpack;
pub mod user;
