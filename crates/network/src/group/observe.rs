//! Everything that matters for one resource group.

use evroc_api::iam::ResourceGroup;
use k8s_openapi::api::core::v1::Namespace;

/// A resource group and its namespace, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub group: ResourceGroup,
    pub namespace: Option<Namespace>,
    /// Whether its VPC and its subnet exist.
    pub has_network: bool,
    /// Whether both have a status: the state that clients read is current.
    pub is_network_reported: bool,
}
