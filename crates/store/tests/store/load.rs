//! Many writers, slow watchers.

use std::time::Duration;

use evroc_store::{KeyRange, Revision, Store, StoreError, WatchRequest};
use futures::StreamExt;
use futures::future::join_all;

use crate::support::{open, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_syncs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    let writes = (0..2000).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { put(&*store, &format!("key/{number}"), "x").await })
    });
    let mut revisions: Vec<_> = join_all(writes).await.into_iter().map(|written| written.expect("written").0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=2000).collect::<Vec<_>>());
    let stats = store.stats();
    assert_eq!(stats.transactions, 2000);
    assert!(stats.commits < 1000, "{stats:?}");
}

/// A watcher that does not read is closed; writers and other watchers do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_closed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    let start = store.revision().await.expect("revision");
    let mut slow = store.watch(WatchRequest::new(KeyRange::all(), start)).await.expect("watch begins");
    let mut quick = store.watch(WatchRequest::new(KeyRange::all(), start)).await.expect("watch begins");
    let reader = tokio::spawn(async move {
        let mut events = 0;
        while events < 10_000 {
            events += quick.next().await.expect("open").expect("works").events.len();
        }
    });
    for round in 0..10 {
        let writes = (0..1000).map(|key| {
            let store = store.clone();
            async move { put(&*store, &format!("{round}/{key}"), "x").await }
        });
        join_all(writes).await;
    }
    reader.await.expect("the quick one saw everything");
    let mut position = Revision::ZERO;
    let error = loop {
        let next = tokio::time::timeout(Duration::from_secs(30), slow.next()).await;
        match next.expect("the watch reports it").expect("an error") {
            Ok(batch) => {
                assert!(batch.events.is_empty() || batch.revision == position.next());
                position = batch.revision;
            }
            Err(error) => break error,
        }
    };
    match error {
        StoreError::Lagged { seen, .. } => assert_eq!(seen, position),
        other => panic!("{other:?}"),
    }
    assert!(slow.next().await.is_none());
    // It goes on where it was, from the history.
    let mut again = store.watch(WatchRequest::new(KeyRange::all(), position)).await.expect("watch begins");
    while position.0 < 10_000 {
        let batch = again.next().await.expect("open").expect("works");
        assert!(batch.is_progress_mark() || batch.revision == position.next());
        position = batch.revision;
    }
}

/// A watch that reads history while compaction goes on gets an error, or misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_complete_or_compacted() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    for round in 0..30 {
        let writes = (0..200).map(|key| {
            let store = store.clone();
            async move { put(&*store, &format!("{}", key % 50), vec![round; 100]).await }
        });
        join_all(writes).await;
    }
    let end = store.revision().await.expect("revision");
    let compactor = {
        let store = store.clone();
        tokio::spawn(async move {
            for at in (0..=end.0).step_by(40) {
                store.compact(Revision(at)).await.expect("compacted");
            }
        })
    };
    let (mut complete, mut errors) = (0, 0);
    while !compactor.is_finished() || complete == 0 {
        let after = store.compacted_at().await.expect("read");
        let mut position = after;
        let stream = store.watch(WatchRequest::new(KeyRange::all(), after)).await;
        let Ok(mut stream) = stream else {
            errors += 1;
            continue;
        };
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("goes on");
            match next.expect("open") {
                Ok(batch) => {
                    assert!(batch.is_progress_mark() || batch.revision == position.next());
                    position = batch.revision;
                    if position >= end {
                        complete += 1;
                        break;
                    }
                }
                Err(StoreError::Compacted { compacted_at, .. }) => {
                    assert!(compacted_at > position);
                    errors += 1;
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    compactor.await.expect("compacted");
    assert!(complete > 0, "{errors} got an error");
}
