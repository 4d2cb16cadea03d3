//! Authorisation in the registry, and the keys and names that it is based on.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use base64::Engine;
use evroc_apiserver::authn::{FoundCaller, Peer};
use evroc_iam::Identity;
use evroc_iam::authz;
use evroc_registry::{Action, Denied, Repository};
use http::header;

use crate::access::caller_of;
use crate::tokens::Issuer;

/// Keys, names and rules that decide about access.
pub struct Access {
    /// Makes and checks tokens.
    pub issuer: Arc<Issuer>,
    /// The registry's name and port, as clients write it.
    pub registry: String,
    /// The authority's certificate, as PEM.
    pub ca: String,
}

#[async_trait]
impl evroc_registry::Authorize for Access {
    async fn authorize(
        &self,
        request: &http::request::Parts,
        repository: Option<&Repository>,
        action: Action,
    ) -> Result<(), Denied> {
        let (identity, scope) = self.registry_caller(request)?;
        if let Some(found) = request.extensions.get::<FoundCaller>() {
            found.note(caller_of(identity.clone()));
        }
        let Some(repository) = repository else { return Ok(()) };
        let wanted = match action {
            Action::Pull => authz::registry::Action::Pull,
            _ => authz::registry::Action::Push,
        };
        if authz::registry::allows(&identity, &scope, repository.as_str(), wanted) {
            return Ok(());
        }
        Err(Denied::Forbidden { message: format!("{} may not {action:?} {repository}", identity.name) })
    }
}

impl Access {
    /// The registry's caller, and the limits of their token: a client certificate, or a token as the password.
    fn registry_caller(&self, request: &http::request::Parts) -> Result<(Identity, Vec<String>), Denied> {
        if let Some(identity) = peer_of(request) {
            return Ok((identity, vec![]));
        }
        let refused = |message: &str| Denied::Unauthenticated {
            challenge: "Basic realm=\"evroc registry\"".into(),
            message: format!("{message}: run `evroc registry login`"),
        };
        let header = request.headers.get(header::AUTHORIZATION).ok_or_else(|| refused("no credential was sent"))?;
        let token =
            header.to_str().ok().and_then(password).ok_or_else(|| refused("expected user and token in Basic form"))?;
        match self.issuer.verifier.verify(&token, authz::registry::AUDIENCE, SystemTime::now()) {
            Ok(claims) => Ok((claims.identity(), claims.scope)),
            Err(error) => Err(refused(&format!("the token is not accepted ({error})"))),
        }
    }
}

/// The password of `Basic …`.
fn password(header: &str) -> Option<String> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| password.to_owned())
}

/// The identity in a connection's client certificate.
fn peer_of(parts: &http::request::Parts) -> Option<Identity> {
    let peer = parts.extensions.get::<Peer>()?;
    Identity::from_client_certificate(peer.certificates.first()?).ok()
}
