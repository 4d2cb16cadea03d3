//! Turns: what is placed one after the other, because each choice follows the one before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// A turn for each resource group in which an object is being placed or waits for that.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn of a namespace, which ends when it is dropped.
    pub async fn of(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(namespace.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_group_has_one_turn_at_a_time_and_groups_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let first = turns.of("a").await;
        assert!(turns.of("a").now_or_never().is_none(), "the turn is taken");
        let other = turns.of("b").now_or_never().expect("another group's turn is free");
        drop(first);
        assert!(turns.of("a").now_or_never().is_some());
        drop(other);
        drop(turns.of("c").await);
        assert!(turns.0.lock().unwrap().len() <= 1, "turns that nobody has are forgotten");
    }
}
