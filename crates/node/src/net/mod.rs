//! The host's network: one namespace per VPC, what is in it, and its way out.
//!
//! [`vpc::HostNetwork`] is what the agent uses; the other modules are its parts, pure where they can be ([`rules`], [`dhcp`],
//! [`names`], [`resolvers`]).

pub mod command;
pub mod dhcp;
pub mod mac;
pub mod names;
pub mod netns;
pub mod resolvers;
pub mod rules;
pub mod tap;
pub mod uplink;
pub mod vpc;
