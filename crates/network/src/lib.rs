//! Resource groups and their networks: the control side, free of any host.
//!
//! Every resource group has one namespace, one VPC and one subnet from the start; this crate makes them and keeps them.

mod context;
mod forget;
mod group;
mod subnet;
mod vpc;

pub use forget::{ForgetError, ForgetGroup};

use std::sync::Arc;

use evroc_controller::{Context, Informers};

use context::Network;

/// Runs every controller of this crate until the process ends. `forget` removes a group's data outside the API.
pub async fn run(base: Context, informers: &Informers, forget: Arc<dyn ForgetGroup>) {
    let network = Arc::new(Network::new(base, informers, forget));
    network.ready().await;
    tokio::join!(group::run(network.clone()), vpc::run(network.clone()), subnet::run(network));
}
