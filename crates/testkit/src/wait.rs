//! Waiting for a condition, never for time.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take: far more than it does on a loaded machine, because nothing but a failure waits so long.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Polls until a value is found, and returns it.
///
/// # Panics
/// With the last observation, if there is none before the deadline.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => {
                panic!("expected within {} s: {what}; last seen: {last}", DEADLINE.as_secs())
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}
