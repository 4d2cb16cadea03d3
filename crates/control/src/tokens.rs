//! Bearer tokens for the API: identifies the caller by a token of the platform's issuer, and AccessToken, the kind whose create
//! returns one.
//!
//! A caller with a token gets no other by it: a lost token is worth nothing after its end.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use evroc_apiserver::authn::{
    Authenticate, AuthenticatorChain, AuthnError, CertificateAuthenticator, Peer, bearer_token,
};
use evroc_apiserver::error::{ApiError, Named};
use evroc_apiserver::virtual_kind::{Answer, Question};
use evroc_apiserver::{ResourceKind, Scope};
use evroc_controller::Clock;
use evroc_iam::Identity;
use evroc_iam::identity::{GROUP_EDGES, GROUP_NODES};
use evroc_iam::token::{API_AUDIENCE, Claims, RetiredKey, TokenError, TokenKey, TokenVerifier};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::read_certificate;

/// The life of a token in seconds by default: clients renew it, and a stolen one is soon worthless.
const LIFE: u64 = 300;
/// The shortest life: clients renew a token 30 seconds before its end.
const SHORTEST: u64 = 60;
/// The longest life: a working day and some. There is no list of revoked tokens.
const LONGEST: u64 = 24 * 3600;

const GROUP: &str = "iam.evroclabs.net";

/// Makes and checks the tokens of one installation.
pub struct Issuer {
    /// Its name, for example `https://iam.evroc.localhost`.
    pub name: String,
    keys: RwLock<Arc<Keys>>,
    clock: Clock,
}

struct Keys {
    signs: TokenKey,
    checks: TokenVerifier,
}

impl Issuer {
    /// An issuer that trusts its own key.
    pub fn new(name: String, key: TokenKey, clock: Clock) -> Self {
        let keys = RwLock::new(Arc::new(Keys { checks: TokenVerifier::new(&name, [&key]), signs: key }));
        Self { name, keys, clock }
    }

    /// Signs with `key` from now on; tokens of the former ones are good until they end.
    pub fn replace_key(&self, key: TokenKey, former: &[RetiredKey]) {
        let checks = TokenVerifier::new(&self.name, [&key]).with_retired(former);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Keys { signs: key, checks });
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the claims of a token that is genuine, in time, and for `audience`.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn verify(&self, token: &str, audience: &str) -> Result<Claims, TokenError> {
        self.keys().checks.verify(token, audience, self.now())
    }

    /// Returns the time at which tokens are made and checked.
    pub fn now(&self) -> SystemTime {
        (self.clock)().into()
    }

    /// Returns a token for `identity` at `audience`, and the second since 1970 in which it ends.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn token(
        &self,
        identity: &Identity,
        audience: &str,
        now: SystemTime,
        life: Duration,
    ) -> Result<(String, i64), TokenError> {
        let claims = Claims::for_identity(identity, &self.name, audience, now, life)?;
        Ok((self.keys().signs.sign(&claims)?, claims.exp))
    }
}

/// Callers by certificate or, without one, by token: the order of Kubernetes.
pub fn authenticator(issuer: &Arc<Issuer>) -> Arc<dyn Authenticate> {
    Arc::new(AuthenticatorChain(vec![
        Arc::new(CertificateAuthenticator::new(read_certificate)),
        Arc::new(Bearer(issuer.clone())),
    ]))
}

/// Callers by `Authorization: Bearer …`.
struct Bearer(Arc<Issuer>);

#[async_trait]
impl Authenticate for Bearer {
    async fn authenticate(&self, _: &Peer, headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        let Some(token) = bearer_token(headers) else { return Ok(None) };
        match self.0.verify(token, API_AUDIENCE) {
            Ok(claims) => Ok(Some(claims.identity())),
            Err(error) => Err(AuthnError { reason: error.to_string() }),
        }
    }
}

/// AccessToken: a create answers with a token for its caller.
pub fn kind(issuer: &Arc<Issuer>) -> ResourceKind {
    let life = json!({
        "type": "integer", "format": "int64", "minimum": SHORTEST, "maximum": LONGEST, "default": LIFE,
        "description": "Seconds until it ends.",
    });
    let schema = json!({"type": "object", "description": "A bearer token for the API: create one, the answer has it.", "properties": {
        "spec": {"type": "object", "default": {}, "properties": {"expirationSeconds": life}},
        "status": {"type": "object", "properties": {
            "token": {"type": "string", "description": "For `Authorization: Bearer`. It is shown once and stored nowhere."},
            "expirationTimestamp": {"type": "string", "format": "date-time", "description": "When it ends."}}}}});
    let mut kind = ResourceKind::new(GROUP, evroc_api::VERSION, "AccessToken", "accesstokens", schema);
    kind.scope = Scope::Cluster;
    kind.answer = Some(Arc::new(Tokens(issuer.clone())));
    kind
}

/// Returns the reason why a caller gets no token, if any.
fn refusal(identity: &Identity) -> Option<&'static str> {
    if identity.came_by_token() {
        return Some("a token cannot ask for another one: use your client certificate (`evroc iam get-access-token`)");
    }
    // They keep their certificate at hand, and a token of theirs could be used from anywhere.
    [GROUP_NODES, GROUP_EDGES]
        .iter()
        .any(|group| identity.is_in(group))
        .then_some("hosts and gateways use their client certificate")
}

struct Tokens(Arc<Issuer>);

#[async_trait]
impl Answer for Tokens {
    async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let identity = &question.identity;
        if let Some(why) = refusal(identity) {
            return Err(ApiError::forbidden(Named { group: GROUP, resource: "accesstokens", name: "" }, why));
        }
        let mut answer = question.object;
        let life = answer.pointer("/spec/expirationSeconds").and_then(Value::as_u64).unwrap_or(LIFE);
        let (token, end) = self
            .0
            .token(identity, API_AUDIENCE, self.0.now(), Duration::from_secs(life))
            .map_err(|error| ApiError::internal(format!("sign a token: {error}")))?;
        let end =
            Timestamp::from_second(end).map_err(|error| ApiError::internal(format!("the token's end: {error}")))?;
        answer["status"] = json!({"token": token, "expirationTimestamp": end.to_string()});
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_people_with_a_certificate_get_tokens() {
        assert_eq!(refusal(&Identity::operator()), None);
        assert!(refusal(&Identity::node("host-1")).is_some());
        assert!(refusal(&Identity::edge()).is_some());
        let claims =
            Claims::for_identity(&Identity::operator(), "it", API_AUDIENCE, SystemTime::now(), Duration::from_secs(60));
        assert!(refusal(&claims.unwrap().identity()).is_some(), "a caller with a token gets no other by it");
    }
}
