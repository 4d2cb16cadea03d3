//! Kinds whose objects are never stored: the response to a create is the object with its status filled in.

use async_trait::async_trait;
use serde_json::Value;

use crate::object::error::ApiError;
use crate::object::identity::Identity;

/// A create that was authenticated, authorised (verb `create`) and validated against the kind's schema.
pub struct Question {
    /// The caller.
    pub identity: Identity,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object that was sent, defaulted and pruned.
    pub object: Value,
}

/// Answers creates of a virtual kind.
#[async_trait]
pub trait Answer: Send + Sync {
    /// The object to send back.
    ///
    /// # Errors
    /// The error to send to the client.
    async fn answer(&self, question: Question) -> Result<Value, ApiError>;
}
