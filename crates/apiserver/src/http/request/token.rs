//! Tokens that continue a list after its last page.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::object::error::ApiError;
use crate::state::storage::keys::ObjectKey;

const FORMAT: &str = "meta.k8s.io/v1";

/// The position at which a list continues: after a key, as of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContinueToken {
    /// The revision of the first page, at least 1; `None` for the newest, if the first page's revision is compacted.
    pub revision: Option<u64>,
    /// The last key of the previous page.
    pub after: ObjectKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: String,
    /// -1 for the newest.
    rv: i64,
    start: String,
    /// Detects tokens that were truncated or changed in transit. Forged tokens gain nothing: the path determines what a list may
    /// contain.
    sum: String,
}

fn refuse(problem: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("invalid continue token: continue key is not valid: {problem}"))
}

impl ContinueToken {
    /// Parses the token of a list of `namespace` (empty: all namespaces, or a cluster-scoped kind).
    ///
    /// # Errors
    /// 400 for everything that [`ContinueToken::encode`] did not write, and for the token of another namespace's list.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, ApiError> {
        let foreign = || refuse("it was not made by this server");
        let text = text.trim_end_matches('=');
        let bytes = BASE64.decode(text).map_err(|error| match error {
            base64::DecodeError::InvalidByte(offset, _) => {
                refuse(format_args!("illegal base64 data at input byte {offset}"))
            }
            // A single remaining character encodes no byte.
            base64::DecodeError::InvalidLength(length) => {
                refuse(format_args!("illegal base64 data at input byte {}", length.saturating_sub(1)))
            }
            _ => foreign(),
        })?;
        let wire: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| foreign())?;
        let version = wire.get("v").and_then(serde_json::Value::as_str).unwrap_or_default();
        if wire.is_object() && version != FORMAT {
            return Err(refuse(format_args!("server does not recognize this encoded version {version}")));
        }
        let wire: Wire = serde_json::from_value(wire).map_err(|_| foreign())?;
        let token = ContinueToken { revision: u64::try_from(wire.rv).ok(), after: ObjectKey::from_text(&wire.start) };
        // Only the canonical token is accepted: no blanks, no other order, no other checksum.
        if token.revision == Some(0) || token.encode() != text {
            return Err(foreign());
        }
        if !namespace.is_empty() && token.after.namespace() != namespace {
            return Err(refuse(format_args!("it is of a list of namespace {:?}", token.after.namespace())));
        }
        Ok(token)
    }

    /// Encodes the token in base64 for URLs.
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |it| i64::try_from(it).unwrap_or(i64::MAX));
        let start = self.after.as_str().to_owned();
        let digest = Sha256::digest(format!("{rv} {start}"));
        let sum = BASE64.encode(&digest[..9]);
        BASE64.encode(serde_json::json!(Wire { v: FORMAT.into(), rv, start, sum }).to_string())
    }
}
