//! What the health endpoints look at beside the server itself.

use async_trait::async_trait;

/// Something that can be well or not.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// As in `/readyz/<name>`.
    fn name(&self) -> &str;

    /// Whether a failure means that the process should be restarted (`/livez`), not only that it should get no
    /// requests (`/readyz`).
    fn is_liveness(&self) -> bool {
        false
    }

    /// Looks.
    ///
    /// # Errors
    /// What is wrong, for operators.
    async fn check(&self) -> Result<(), String>;
}
