//! Health checks beyond those of the server itself.

use async_trait::async_trait;

/// A health check.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// Returns the name, as in `/readyz/<name>`.
    fn name(&self) -> &str;

    /// Whether a failure means that the process should be restarted (`/livez`), not only that it should get no
    /// requests (`/readyz`).
    fn is_liveness(&self) -> bool {
        false
    }

    /// Runs the check.
    ///
    /// # Errors
    /// The problem, for operators.
    async fn check(&self) -> Result<(), String>;
}
