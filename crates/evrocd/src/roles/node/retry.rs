//! Work at the start of an agent, which needs an API that is often a moment later than the node.

use std::time::Duration;

use evroc_controller::chain;

/// The pause before work at the start of an agent is tried again, and what it grows to. The API is often a moment later than the node;
/// an error that stays is no reason to ask all the time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pauses between tries.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)))
}

/// Does something until it succeeds. Logs each failure that differs from the one before, with the operation that failed.
pub(super) async fn until_done<E, F>(operation: &str, pauses: impl Iterator<Item = Duration>, work: impl Fn() -> F)
where
    E: std::error::Error,
    F: Future<Output = Result<(), E>>,
{
    let mut before = String::new();
    for pause in pauses {
        let Err(error) = work().await else { return };
        let message = chain(&error);
        if message != before {
            tracing::warn!(operation, error = message, "failed at the start, will be tried again");
        }
        before = message;
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_at_the_start_is_tried_until_it_succeeds_and_holds_up_nothing_else() {
        let tries = AtomicU32::new(0);
        let at_once = || std::iter::repeat(Duration::ZERO);
        let fails_thrice = until_done("count", at_once(), || async {
            if tries.fetch_add(1, Ordering::SeqCst) < 3 { Err(std::io::Error::other("not yet")) } else { Ok(()) }
        });
        let never = until_done("refuse", at_once(), || async { Err(std::io::Error::other("422")) });
        tokio::select! {
            () = fails_thrice => {}
            () = never => panic!("it never succeeds"),
        }
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        assert_eq!((pauses().next(), pauses().nth(100)), (Some(FIRST_PAUSE), Some(LONGEST_PAUSE)));
    }
}
