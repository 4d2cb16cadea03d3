//! Kinds whose objects are never stored: a create is a question, the answer is the object with its status filled in.

use async_trait::async_trait;
use serde_json::Value;

use crate::object::error::ApiError;
use crate::object::identity::Identity;

/// A question that was authenticated, authorised (verb `create`) and validated against the kind's schema.
pub struct Question {
    /// Who asks.
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
    /// Whatever the client is to be told.
    async fn answer(&self, question: Question) -> Result<Value, ApiError>;
}
