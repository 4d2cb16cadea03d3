//! Authorisation of API requests by the rules of `evroc-iam`.

use async_trait::async_trait;
use evroc_apiserver::authn::Identity as Caller;
use evroc_apiserver::authz::{Attributes, Authorize, Decision};
use evroc_iam::Identity;
use evroc_iam::authz::{self, Request};
use jiff::Timestamp;

/// The tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables;

/// Reads a verified client certificate for the API server.
///
/// # Errors
/// Why it names nobody, for the audit log.
pub fn read_certificate(der: &[u8]) -> Result<Caller, String> {
    Identity::from_client_certificate(der).map(caller_of).map_err(|error| error.to_string())
}

/// The API server's word for a caller, in the words of the tables.
pub fn identity_of(caller: &Caller) -> Identity {
    Identity {
        name: caller.user.clone(),
        groups: caller.groups.clone(),
        uid: caller.uid.clone(),
        extra: caller.extra.clone(),
    }
}

/// An identity of the tables, in the API server's words.
pub fn caller_of(identity: Identity) -> Caller {
    let expires = identity.expires().and_then(|seconds| Timestamp::from_second(seconds).ok());
    Caller { user: identity.name, groups: identity.groups, uid: identity.uid, extra: identity.extra, expires }
}

#[async_trait]
impl Authorize for Tables {
    async fn authorize(&self, caller: &Caller, asked: &Attributes) -> Decision {
        let request = if asked.is_resource {
            Request::Resource {
                verb: &asked.verb,
                group: &asked.group,
                resource: &asked.resource,
                subresource: &asked.subresource,
                namespace: &asked.namespace,
                name: &asked.name,
            }
        } else {
            Request::Path { verb: &asked.verb, path: &asked.path }
        };
        match authz::decide(&identity_of(caller), &request) {
            authz::Decision::Allowed { .. } => Decision::Allow,
            authz::Decision::Denied { reason } => Decision::Deny { reason },
        }
    }
}
