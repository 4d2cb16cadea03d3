//! Authorisation in the registry, and the keys and names that it is based on.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use evroc_apiserver::authn::{Authenticate, AuthenticatorChain, AuthnError, CertificateAuthenticator, Peer};
use evroc_iam::Identity;
use evroc_iam::authz;
use evroc_registry::{Action, Denied, Repository};
use http::header;
use tokio::sync::watch;

use crate::access::read_certificate;
use crate::tokens::Issuer;

/// Keys, names and rules that decide about access.
pub struct Access {
    /// Makes and checks tokens.
    pub issuer: Arc<Issuer>,
    /// The registry's name and port, as clients write it.
    pub registry: String,
    /// The certificates of the trusted authorities, as PEM; they can change.
    pub ca: watch::Receiver<String>,
}

#[async_trait]
impl evroc_registry::Authorize for Access {
    async fn authorize(
        &self,
        request: &http::request::Parts,
        repository: Option<&Repository>,
        action: Action,
    ) -> Result<(), Denied> {
        let identity = request.extensions.get::<Identity>().ok_or_else(unknown)?;
        let Some(repository) = repository else { return Ok(()) };
        let wanted = match action {
            Action::Pull => authz::registry::Action::Pull,
            _ => authz::registry::Action::Push,
        };
        if authz::registry::allows(identity, repository.as_str(), wanted) {
            return Ok(());
        }
        Err(Denied::Forbidden { message: format!("{} may not {action:?} {repository}", identity.user) })
    }
}

/// Returns the refusal for callers that the API server does not know.
fn unknown() -> Denied {
    Denied::Unauthenticated {
        challenge: "Basic realm=\"evroc registry\"".into(),
        message: "expected a client certificate, or user and token in Basic form, and found none that is accepted: \
                  run `evroc registry login`"
            .into(),
    }
}

/// Returns the authenticator of the registry: a client certificate, or a token as the password.
pub fn authenticator(issuer: &Arc<Issuer>) -> Arc<dyn Authenticate> {
    Arc::new(AuthenticatorChain(vec![
        Arc::new(CertificateAuthenticator::new(read_certificate)),
        Arc::new(Password(issuer.clone())),
    ]))
}

/// Callers by `Authorization: Basic …`, whose password is a token for the registry.
struct Password(Arc<Issuer>);

#[async_trait]
impl Authenticate for Password {
    async fn authenticate(&self, _: &Peer, headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let refuse = |reason: String| AuthnError { reason };
        let token = header
            .to_str()
            .ok()
            .and_then(password)
            .ok_or_else(|| refuse("expected user and token in Basic form".into()))?;
        let claims = self.0.verify(&token, authz::registry::AUDIENCE);
        claims.map(|claims| Some(claims.identity())).map_err(|error| refuse(error.to_string()))
    }
}

/// The password of `Basic …`.
fn password(header: &str) -> Option<String> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use evroc_iam::TokenKey;
    use evroc_iam::token::API_AUDIENCE;

    #[tokio::test]
    async fn whoever_has_a_password_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let (key, _) = TokenKey::open_or_create(&dir.path().join("key"), None).unwrap();
        let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let issuer = Arc::new(Issuer::new("it".into(), key, Arc::new(move || start)));
        let ask = async |audience: &str, life: u64| {
            let made = issuer.now() - Duration::from_secs(600);
            let (token, _) = issuer.token(&Identity::operator(), audience, made, Duration::from_secs(life)).unwrap();
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("anything:{token}"));
            let headers =
                http::HeaderMap::from_iter([(header::AUTHORIZATION, format!("Basic {basic}").parse().unwrap())]);
            authenticator(&issuer).authenticate(&Peer::default(), &headers).await
        };
        let found = ask(authz::registry::AUDIENCE, 3600).await.unwrap().expect("somebody");
        assert_eq!(found.user, "admin");
        assert!(
            ask(authz::registry::AUDIENCE, 60).await.is_err(),
            "the clock is the issuer's, and the token has ended"
        );
        assert!(ask(API_AUDIENCE, 3600).await.is_err(), "a token for the API is none for the registry");
    }
}
