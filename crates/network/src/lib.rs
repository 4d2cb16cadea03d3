//! VPCs, address allocation, security rules in a host-independent form: the control side, free of any host.
//!
//! Every resource group has one namespace, one VPC and one subnet from the start; this crate makes them and keeps them.

mod tenancy;

use evroc_controller::Context;

/// Runs every controller of this crate until the process ends.
pub async fn run(context: Context) {
    tenancy::run(context).await;
}
