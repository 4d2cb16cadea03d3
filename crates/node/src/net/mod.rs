//! The host's network: namespaces, and what is in them.
pub mod dhcp;
pub mod mac;
pub mod names;
pub mod netns;
pub mod resolvers;
pub mod rules;
pub mod tap;
