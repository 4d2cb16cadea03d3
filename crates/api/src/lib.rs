//! The kinds of the evroc cloud: types, schema, defaults, validation, printer columns.
//!
//! Pure: no I/O and no runtime, so that it builds on every operating system and serves the server, the controllers and the
//! command line alike. The schema of each kind comes from its Rust type; rules beyond a schema are its [`rules::KindRules`] beside
//! the type.

pub mod claims;
pub mod compute;
pub mod conditions;
pub mod deletion;
pub mod iam;
pub mod image_ref;
pub mod infra;
mod infra_rules;
pub mod kinds;
pub mod ledgers;
pub mod names;
pub mod networking;
pub mod rules;
pub mod run;
mod run_rules;
pub mod ssh_key;
pub mod streams;
pub mod subnet_range;
pub mod units;
pub mod user_data;

#[cfg(test)]
mod strings;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The version that every group of this generation has.
pub const VERSION: &str = "v1alpha1";

/// The finalizer that a host's agent holds on the resources it has created.
pub const NODE_FINALIZER: &str = "infra.evroclabs.net/node";
/// The finalizer that a gateway holds on a replica until it has drained it.
pub const GATEWAY_FINALIZER: &str = "run.evroclabs.net/gateway";
/// The finalizer that the compute controllers hold on virtual machines, disks and placement groups.
pub const COMPUTE_FINALIZER: &str = "compute.evroclabs.net/controller";
/// The finalizer that holds a resource group until its namespace is deleted.
pub const GROUP_FINALIZER: &str = "iam.evroclabs.net/controller";

/// Every kind, as a CustomResourceDefinition.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    kinds::all().into_iter().map(|kind| kind.definition).collect()
}
