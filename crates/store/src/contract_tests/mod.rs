//! The tests that every backend must pass: the promises of [`crate::contract`].
//!
//! A backend implements [`Subject`] and calls [`contract_tests!`] in its test binary, which makes one test of each case.
//!
//! [`contract_tests!`]: crate::contract_tests!

mod leases;
mod reads;
mod transactions;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::contract::{
    Batch, Change, Event, KeyRange, KeyValue, RangeRequest, Revision, Store, Txn, WatchRequest, WatchStream,
};

pub use leases::*;
pub use reads::*;
pub use transactions::*;
pub use watches::*;

/// An empty store under test.
#[async_trait]
pub trait Subject: Send {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Lets time go by for the store's leases.
    async fn pass(&self, time: Duration);

    /// Stops the store and starts it again on the same state.
    async fn restart(&mut self);

    /// How many revisions a restart takes in which nothing changes.
    fn restart_takes(&self) -> u64 {
        0
    }
}

/// Makes a test of each case of the contract. The argument is an async function that makes a [`Subject`].
#[macro_export]
macro_rules! contract_tests {
    ($subject:path) => {
        $crate::contract_tests!(@cases $subject:
            creates_updates_and_deletes,
            conditions_are_checked_in_order,
            one_revision_for_all_operations,
            a_transaction_without_effect_takes_no_revision,
            exactly_one_of_many_writers_wins,
            limits_and_nonsense_are_refused,
            large_and_empty_values_come_back,
            pages_of_a_range,
            reads_at_old_revisions,
            future_revisions_are_refused,
            compaction_forgets_only_what_was_superseded,
            continuous_compaction_keeps_recent_revisions,
            continuous_compaction_keeps_history_small,
            state_survives_a_restart,
            a_watch_continues_from_the_past,
            a_watch_sees_only_its_range,
            watchers_see_the_same_order_while_writers_write,
            a_watch_behind_compaction_gets_an_error,
            progress_reaches_idle_watchers,
            leases_end_and_take_their_keys,
            leases_are_kept_alive_and_revoked,
            rewriting_a_key_changes_its_lease,
            leases_survive_a_restart,
        );
    };
    (@cases $subject:path: $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let subject = $subject().await;
                $crate::contract_tests::$case(Box::new(subject)).await;
            }
        )*
    };
}

/// Longer than any backend may need; reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    let operation = crate::Operation::put(key.to_owned(), value.to_owned());
    commit(store, Txn::new().then(operation)).await
}

async fn delete(store: &Arc<dyn Store>, key: &str) -> Revision {
    commit(store, Txn::new().then(crate::Operation::delete(key.to_owned()))).await
}

async fn commit(store: &Arc<dyn Store>, txn: Txn) -> Revision {
    let outcome = store.txn(txn).await.expect("transaction is answered");
    outcome.committed().unwrap_or_else(|| panic!("transaction is applied: {outcome:?}"))
}

async fn get(store: &Arc<dyn Store>, key: &str) -> Option<KeyValue> {
    store.get(key.as_bytes(), None).await.expect("key is read").0
}

async fn value(store: &Arc<dyn Store>, key: &str) -> Option<String> {
    get(store, key).await.map(|item| text(&item.value))
}

async fn keys(store: &Arc<dyn Store>, request: RangeRequest) -> Vec<String> {
    let page = store.range(request).await.expect("range is read");
    page.items.iter().map(|item| text(&item.key)).collect()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("tests write text")
}

async fn watch(store: &Arc<dyn Store>, range: KeyRange, after: Revision) -> WatchStream {
    store.watch(WatchRequest::new(range, after)).await.expect("watch begins")
}

async fn next(stream: &mut WatchStream) -> Option<crate::Result<Batch>> {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("watch goes on in time")
}

/// Reads a watch until it has delivered everything up to `until`, and checks that revisions only go forward.
async fn events_until(stream: &mut WatchStream, until: Revision) -> Vec<(Revision, Event)> {
    let mut events = Vec::new();
    let mut seen = Revision::ZERO;
    while seen < until {
        let batch = next(stream).await.expect("watch is open").expect("watch works");
        if batch.is_progress_mark() {
            assert!(batch.revision >= seen, "{} after {seen}", batch.revision);
        } else {
            assert!(batch.revision > seen, "{} after {seen}", batch.revision);
        }
        seen = batch.revision;
        events.extend(batch.events.iter().map(|event| (batch.revision, event.clone())));
    }
    events
}

/// "key=value (was value)", with "-" for no value.
fn describe(events: &[(Revision, Event)]) -> Vec<String> {
    let describe = |(revision, event): &(Revision, Event)| {
        let now = match &event.change {
            Change::Put(item) => {
                assert_eq!(item.mod_revision, *revision);
                text(&item.value)
            }
            Change::Delete { revision: deleted_at, .. } => {
                assert_eq!(deleted_at, revision);
                "-".to_owned()
            }
        };
        let before = event.previous.as_ref().map_or("-".to_owned(), |previous| {
            assert!(previous.mod_revision < *revision);
            text(previous.value.as_ref().expect("previous values were requested"))
        });
        format!("{}={now} (was {before})", text(event.key()))
    };
    events.iter().map(describe).collect()
}
