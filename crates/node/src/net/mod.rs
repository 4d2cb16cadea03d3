//! The host's network: namespaces, and what is in them.
pub mod netns;
