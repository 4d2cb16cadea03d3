//! The platform in one process, with simulated hosts.
//!
//! ```ignore
//! let platform = Platform::start().await;                  // store, API, controllers, one host, one gateway
//! platform.create(&disk("boot", "tiny.1-0.1")).await;
//! platform.create(&virtual_machine("hello", &["boot"])).await;
//! platform.until::<VirtualMachine>("hello", "Ready", |vm| is_ready(vm)).await;
//! ```
//! Everything is the product's own but what touches a machine: [`SimHost`] plays the host's agent and [`SimGateway`] the HTTPS
//! gateway, both through the API with the identities and rights that the real ones have; [`SimImages`] stands for the registry.
//! Each can be made to misbehave. [`Fault`] lets one write of the controllers fail, lose its answer, or be the last thing that
//! they do before they are killed. Time is the machine's, and can be moved forward ([`Platform::advance`]).

mod churn;
mod client;
mod clock;
mod empty_store;
mod endpoint;
mod fault;
mod gateway;
mod host;
mod images;
pub mod objects;
mod platform;
mod snapshot;
mod wait;

pub use churn::Sizes;
pub use client::{ApiOf, describe};
pub use clock::TestClock;
pub use empty_store::empty_store;
pub use endpoint::Endpoint;
pub use evroc_apiserver::schema::THREAD_STACK_BYTES;
pub use fault::{Fault, Manner};
pub use gateway::SimGateway;
pub use host::{Behaviour, HostSize, IMAGE, SimHost};
pub use images::SimImages;
pub use platform::{Builder, DOMAIN, GROUP, Platform};
pub use wait::{DEADLINE, eventually};
