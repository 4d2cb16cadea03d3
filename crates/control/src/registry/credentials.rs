//! RegistryCredential: a question whose answer is what skopeo, docker and podman need.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evroc_apiserver::error::ApiError;
use evroc_apiserver::virtual_kind::{Answer, Question};
use evroc_apiserver::{ResourceKind, Scope};
use evroc_iam::authz::registry::AUDIENCE;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Access;

/// How long a credential is good for: a working day.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// The kind.
pub fn kind(access: &Arc<Access>) -> ResourceKind {
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "description": "A credential for the container registry: create one, the answer has it.", "properties": {
        "spec": {"type": "object", "properties": {}},
        "status": {"type": "object", "properties": {
            "registry": text, "username": text, "password": text, "caBundle": text, "expirationTimestamp": {"type": "string", "format": "date-time"}}}}});
    let mut kind =
        ResourceKind::new("iam.evroclabs.net", evroc_api::VERSION, "RegistryCredential", "registrycredentials", schema);
    kind.scope = Scope::Cluster;
    kind.answer = Some(Arc::new(Credentials(access.clone())));
    kind
}

struct Credentials(Arc<Access>);

#[async_trait]
impl Answer for Credentials {
    async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let identity = &question.identity;
        let (password, end) = self
            .0
            .issuer
            .token(identity, AUDIENCE, self.0.issuer.now(), LIFE)
            .map_err(|error| ApiError::internal(format!("sign a token: {error}")))?;
        let end = Timestamp::from_second(end).map(|time| time.to_string()).unwrap_or_default();
        let mut answer = question.object;
        answer["status"] = json!({
            "registry": self.0.registry, "username": identity.user, "password": password,
            "caBundle": *self.0.ca.borrow(), "expirationTimestamp": end,
        });
        Ok(answer)
    }
}
