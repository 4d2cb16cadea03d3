//! Authorisation of API requests by the rules of `evroc-iam`.

use async_trait::async_trait;
use evroc_apiserver::authn::Identity as Caller;
use evroc_apiserver::authz::{Attributes, Authorize, Decision};
use evroc_iam::Identity;
use evroc_iam::authz::{self, Request};
use jiff::Timestamp;

/// The authoriser of the API server: decides by the roles of `evroc-iam`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoleAuthorizer;

/// Reads a verified client certificate for the API server.
///
/// # Errors
/// The reason why it identifies no caller, for the audit log.
pub fn read_certificate(der: &[u8]) -> Result<Caller, String> {
    Identity::from_client_certificate(der).map(caller_of).map_err(|error| error.to_string())
}

/// Converts a caller of the API server into an identity of `evroc-iam`.
pub fn identity_of(caller: &Caller) -> Identity {
    Identity {
        name: caller.user.clone(),
        groups: caller.groups.clone(),
        uid: caller.uid.clone(),
        extra: caller.extra.clone(),
    }
}

/// Converts an identity of `evroc-iam` into a caller of the API server.
pub fn caller_of(identity: Identity) -> Caller {
    let expires = identity.expires().and_then(|seconds| Timestamp::from_second(seconds).ok());
    Caller { user: identity.name, groups: identity.groups, uid: identity.uid, extra: identity.extra, expires }
}

#[async_trait]
impl Authorize for RoleAuthorizer {
    async fn authorize(&self, caller: &Caller, attributes: &Attributes) -> Decision {
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
        match authz::decide(&identity_of(caller), &request) {
            authz::Decision::Allowed { .. } => Decision::Allow,
            authz::Decision::Denied { reason } => Decision::Deny { reason },
        }
    }
}
