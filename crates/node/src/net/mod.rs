//! The host's network: one namespace per VPC, its content, and its way out.
//!
//! [`network::Network`] is what the agent uses, with [`vpc::HostNetwork`] behind it, or [`memory::MemoryNetwork`] in tests; the other
//! modules are parts of the real one, pure where they can be ([`rules`], [`dhcp`], [`names`], [`resolvers`]).

pub mod command;
pub mod dhcp;
pub mod error;
pub mod folder;
mod hidden;
pub mod holder;
pub mod links;
pub mod mac;
pub mod memory;
pub mod names;
pub mod netns;
pub mod network;
pub mod resolvers;
pub mod rules;
pub mod tap;
pub mod uplink;
pub mod vpc;
