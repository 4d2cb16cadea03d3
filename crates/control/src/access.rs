//! Authorisation of API requests by the rules of `evroc-iam`.

use async_trait::async_trait;
use evroc_apiserver::authz::{Attributes, Authorize, Decision};
use evroc_iam::Identity;
use evroc_iam::authz::{self, Request};

/// The authoriser of the API server: decides by the roles of `evroc-iam`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoleAuthorizer;

/// Reads a verified client certificate for the API server.
///
/// # Errors
/// The reason why it names no user, for the audit log.
pub fn read_certificate(der: &[u8]) -> Result<Identity, String> {
    Identity::from_client_certificate(der).map_err(|error| error.to_string())
}

#[async_trait]
impl Authorize for RoleAuthorizer {
    async fn authorize(&self, caller: &Identity, attributes: &Attributes) -> Decision {
        let request = if attributes.is_resource {
            Request::Resource {
                verb: &attributes.verb,
                group: &attributes.group,
                resource: &attributes.resource,
                subresource: &attributes.subresource,
                namespace: &attributes.namespace,
                name: &attributes.name,
            }
        } else {
            Request::Path { verb: &attributes.verb, path: &attributes.path }
        };
        match authz::decide(caller, &request) {
            authz::Decision::Allowed { .. } => Decision::Allow,
            authz::Decision::Denied { reason } => Decision::Deny { reason },
        }
    }
}
