//! Health checks beyond those of the server itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

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

/// For how long a finding is good. Anybody may ask, without credentials: shorter lets them keep the store busy, longer delays what
/// supervisors wait for.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// When something was looked at last, and what was wrong with it.
pub(crate) type LastFinding = Mutex<Option<(Instant, Option<String>)>>;

/// The findings of the checks that do work: of the store, then those of [`HealthCheck`]s.
pub(crate) struct Probes {
    pub(crate) store: LastFinding,
    pub(crate) checks: Vec<(Arc<dyn HealthCheck>, LastFinding)>,
}

impl Probes {
    pub(crate) fn new(checks: Vec<Arc<dyn HealthCheck>>) -> Self {
        Probes { store: Mutex::default(), checks: checks.into_iter().map(|check| (check, Mutex::default())).collect() }
    }
}

/// Returns the finding that is still good, or makes a new one; who asks meanwhile waits for that one.
pub(crate) async fn once_a_while(
    last: &LastFinding,
    name: &str,
    look: impl Future<Output = Result<(), String>>,
) -> Option<String> {
    let mut last = last.lock().await;
    if let Some((at, problem)) = &*last
        && at.elapsed() < GOOD_FOR
    {
        return problem.clone();
    }
    let problem = look.await.err();
    if let Some(problem) = &problem {
        tracing::warn!(check = name, %problem, "health check failed");
    }
    *last = Some((Instant::now(), problem.clone()));
    problem
}
