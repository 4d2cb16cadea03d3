//! The kinds of the evroc cloud: types, schema, defaults, validation, printer columns.
//!
//! Pure: no I/O and no runtime, so that it builds on every operating system and serves the server, the controllers and the
//! command line alike. The schema of each kind comes from its Rust type; what a schema cannot say is a function beside the type.

pub mod claims;
pub mod compute;
pub mod conditions;
pub mod deletion;
pub mod iam;
pub mod image_ref;
pub mod infra;
pub mod networking;
pub mod run;
pub mod ssh_key;
pub mod units;

#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The version that every group of this generation has.
pub const VERSION: &str = "v1alpha1";

/// The finalizer that a host's agent holds on what it has made.
pub const NODE_FINALIZER: &str = "infra.evroclabs.net/node";
/// The finalizer that a gateway holds on a replica until it has drained it.
pub const GATEWAY_FINALIZER: &str = "run.evroclabs.net/gateway";
/// The finalizer that the compute controllers hold on virtual machines and disks.
pub const COMPUTE_FINALIZER: &str = "compute.evroclabs.net/controller";
/// The finalizer that holds a resource group until its namespace is gone.
pub const GROUP_FINALIZER: &str = "iam.evroclabs.net/controller";

/// Every kind, as a CustomResourceDefinition: what the API server registers and `xtask crds` writes.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        compute::VirtualMachine::crd(),
        compute::Disk::crd(),
        compute::DiskImage::crd(),
        compute::DiskStorageClass::crd(),
        compute::VMVirtualResources::crd(),
        networking::VirtualPrivateCloud::crd(),
        networking::Subnet::crd(),
        run::Service::crd(),
        run::Revision::crd(),
        iam::Organization::crd(),
        iam::ResourceGroup::crd(),
        infra::Host::crd(),
        infra::Volume::crd(),
        infra::Machine::crd(),
        infra::Replica::crd(),
    ];
    for definition in &mut all {
        for version in &mut definition.spec.versions {
            version.schema.iter_mut().filter_map(|it| it.open_api_v3_schema.as_mut()).for_each(not_nullable);
        }
    }
    all
}

/// An optional field is left out, not null, as everywhere in Kubernetes: what may be null has no type in OpenAPI v2, and
/// `kubectl explain` before 1.27 would show none and nothing below it.
fn not_nullable(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|it| it.values_mut()) {
        not_nullable(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => not_nullable(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(not_nullable),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        not_nullable(values);
    }
}
