//! Helpers shared by the suites over the finished product; the suites themselves are in `tests/suites`.
//!
//! Everything a test makes on the machine carries the [`PREFIX`] in its name, so that a cloud from `make run` and any number of
//! test runs stand side by side, and [`leftovers`] can say whose something is.

pub mod etcd;
pub mod leftovers;
pub mod names;
pub mod process;
pub mod published;

pub use names::PREFIX;
