//! Ranges, old revisions, compaction, restart.

use std::sync::Arc;
use std::time::Duration;

use super::{DEADLINE, Subject, commit, delete, get, keys, put, text, value};
use crate::clock::{Clock, ManualClock};
use crate::compaction::{Retention, compact_continuously};
use crate::contract::{KeyRange, Operation, RangeRequest, Revision, Txn};
use crate::error::StoreError;

/// Ranges, limits, continuation at the first page's revision, counts.
pub async fn pages_of_a_range(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut txn = Txn::new();
    for key in ["a", "a/1", "a/2", "a/3", "a/4", "a/5", "a0", "b"] {
        txn = txn.then(Operation::put(key, "v"));
    }
    let listed_at = commit(&store, txn).await;
    let prefix = KeyRange::prefix("a/");
    let request = RangeRequest::new(prefix.clone()).limit(2).with_count();
    let page = store.range(request).await.expect("first page");
    assert_eq!((page.more, page.count, page.revision), (true, Some(5), listed_at));
    assert_eq!(page.items.iter().map(|i| text(&i.key)).collect::<Vec<_>>(), ["a/1", "a/2"]);

    // Later changes do not show in the following pages.
    delete(&store, "a/3").await;
    put(&store, "a/35", "new").await;
    let rest = prefix.after(b"a/2");
    let request = RangeRequest::new(rest.clone()).at(listed_at).limit(3).with_count();
    let page = store.range(request).await.expect("second page");
    assert_eq!((page.more, page.count, page.revision), (false, Some(3), listed_at));
    assert_eq!(page.items.iter().map(|i| text(&i.key)).collect::<Vec<_>>(), ["a/3", "a/4", "a/5"]);
    assert_eq!(keys(&store, RangeRequest::new(rest)).await, ["a/35", "a/4", "a/5"]);

    let all = |range| RangeRequest::new(range);
    assert_eq!(keys(&store, all(KeyRange::all())).await.len(), 8);
    assert_eq!(keys(&store, all(KeyRange::single("a"))).await, ["a"]);
    assert_eq!(keys(&store, all(KeyRange::new("a0", "b"))).await, ["a0"]);
    assert!(keys(&store, all(KeyRange::new("b", "a"))).await.is_empty());
    assert!(keys(&store, all(KeyRange::new("a", "a"))).await.is_empty());
    let nothing = store.range(all(KeyRange::prefix("z")).with_count()).await.expect("read");
    assert_eq!((nothing.items.len(), nothing.more, nothing.count), (0, false, Some(0)));
}

/// Every revision shows the state of the time when it was the newest.
pub async fn reads_at_old_revisions(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut history = Vec::new();
    for (key, write) in
        [("a", Some("1")), ("b", Some("2")), ("a", None), ("a", Some("3")), ("b", Some("4")), ("b", None)]
    {
        let revision = match write {
            Some(value) => put(&store, key, value).await,
            None => delete(&store, key).await,
        };
        history.push((revision, value(&store, "a").await, value(&store, "b").await));
    }
    for (revision, a, b) in history {
        for (key, expected) in [("a", a), ("b", b)] {
            let (item, shown) = store.get(key.as_bytes(), Some(revision)).await.expect("read");
            assert_eq!(shown, revision);
            assert_eq!(item.map(|item| text(&item.value)), expected, "{key} at {revision}");
            let request = RangeRequest::new(KeyRange::single(key)).at(revision);
            let page = store.range(request).await.expect("read");
            assert_eq!(page.items.first().map(|item| text(&item.value)), expected);
        }
    }
}

/// A future revision cannot be read, watched or compacted.
pub async fn future_revisions_are_refused(subject: Box<dyn Subject>) {
    let store = subject.store();
    let current = put(&store, "a", "1").await;
    let future = current.next();
    let check = |error: StoreError| match error {
        StoreError::FutureRevision { requested, current: found } => {
            assert_eq!((requested, found), (future, current));
        }
        other => panic!("{other:?}"),
    };
    check(store.get(b"a", Some(future)).await.expect_err("future"));
    check(store.range(RangeRequest::new(KeyRange::all()).at(future)).await.expect_err("future"));
    check(store.compact(future).await.expect_err("future"));
}

/// Compaction at R: below R nothing can be read, from R on everything.
pub async fn compaction_forgets_only_what_was_superseded(mut subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut history = Vec::new();
    put(&store, "constant", "0").await;
    for round in 0..10 {
        put(&store, "a", &round.to_string()).await;
        if round % 2 == 0 {
            put(&store, "b", &round.to_string()).await;
        } else {
            delete(&store, "b").await;
        }
        let revision = store.revision().await.expect("revision");
        history.push((revision, value(&store, "a").await, value(&store, "b").await));
    }
    let at = history[5].0;
    store.compact(at).await.expect("compacted");
    store.compact(at).await.expect("again");
    store.compact(history[2].0).await.expect("an older one changes nothing");
    drop(store);
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(store.compacted_at().await.expect("read"), at);
        for (revision, a, b) in &history {
            for (key, expected) in [("a", a), ("b", b)] {
                match store.get(key.as_bytes(), Some(*revision)).await {
                    Ok((item, _)) => {
                        assert!(*revision >= at, "{revision} is compacted");
                        assert_eq!(&item.map(|item| text(&item.value)), expected);
                    }
                    Err(StoreError::Compacted { requested, compacted_at }) => {
                        assert!(*revision < at, "{revision} is not compacted");
                        assert_eq!((requested, compacted_at), (*revision, at));
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            let (item, _) = store.get(b"constant", Some(at)).await.expect("read");
            assert_eq!(item.expect("exists").value, "0");
        }
        drop(store);
        subject.restart().await;
    }
    // Compacting at the newest revision keeps the newest state and the counter.
    let store = subject.store();
    let last = delete(&store, "a").await;
    store.compact(last).await.expect("compacted");
    drop(store);
    subject.restart().await;
    let store = subject.store();
    let last = Revision(last.0 + subject.restart_takes());
    assert_eq!(store.revision().await.expect("revision"), last);
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(put(&store, "a", "again").await, last.next());
}

/// Every acknowledged write exists after a restart, history too.
pub async fn state_survives_a_restart(mut subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut expected = Vec::new();
    for number in 0..50 {
        put(&store, &format!("key/{:02}", number % 20), &number.to_string()).await;
        let request = RangeRequest::new(KeyRange::all());
        expected.push(store.range(request).await.expect("read"));
    }
    drop(store);
    subject.restart().await;
    let store = subject.store();
    for page in &expected {
        let request = RangeRequest::new(KeyRange::all()).at(page.revision);
        assert_eq!(store.range(request).await.expect("read"), *page);
    }
    let newest = expected.last().map_or(Revision::ZERO, |page| page.revision);
    let newest = Revision(newest.0 + subject.restart_takes());
    assert_eq!(put(&store, "key/after", "x").await, newest.next());
}

/// History goes by age and by number.
pub async fn continuous_compaction_keeps_recent_revisions(subject: Box<dyn Subject>) {
    let store = subject.store();
    let clock = ManualClock::default();
    let retention = Retention { age: Duration::from_secs(10), revisions: 50, ..Retention::default() };
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let compactor = tokio::spawn(compact_continuously(store.clone(), shared, retention));
    let compacted = async |at: Revision| {
        let poll = async {
            while store.compacted_at().await.expect("read") < at {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.expect("compacted in time");
        assert_eq!(store.compacted_at().await.expect("read"), at);
    };
    let first = put(&store, "a", "1").await;
    clock.advance(Duration::from_secs(1));
    let mut last = first;
    for number in 0..49 {
        last = put(&store, "a", &number.to_string()).await;
    }
    assert_eq!(store.compacted_at().await.expect("read"), Revision::ZERO);
    // More than 50 revisions, however young.
    for number in 0..10 {
        last = put(&store, "a", &number.to_string()).await;
    }
    clock.advance(Duration::from_secs(1));
    compacted(Revision(last.0 - 50)).await;
    clock.advance(Duration::from_secs(10));
    compacted(last).await;
    assert_eq!(value(&store, "a").await.as_deref(), Some("9"));
    compactor.abort();
}

/// History goes by size, however young it is, and a small history stays.
pub async fn continuous_compaction_keeps_history_small(subject: Box<dyn Subject>) {
    const BYTES: u64 = 4 << 20;
    let store = subject.store();
    let clock = ManualClock::default();
    let retention = Retention { age: Duration::from_secs(100_000), revisions: u64::MAX, bytes: BYTES };
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let compactor = tokio::spawn(compact_continuously(store.clone(), shared, retention));
    let step = || clock.advance(Duration::from_secs(10_000));
    put(&store, "kept", "small").await;
    for number in 0..3 {
        step();
        put(&store, "a", &number.to_string()).await;
    }
    assert_eq!(store.compacted_at().await.expect("read"), Revision::ZERO);
    let grow = async {
        let mut written = 0;
        while store.compacted_at().await.expect("read") == Revision::ZERO {
            written += 1;
            put(&store, "a", &"x".repeat(100_000)).await;
            if written % 5 == 0 {
                step();
            }
        }
        written
    };
    let written: u64 = tokio::time::timeout(DEADLINE, grow).await.expect("compacted in time");
    // A value takes a little more than its bytes.
    assert!(written * 200_000 > BYTES, "{written} writes were too few");
    assert_eq!(value(&store, "kept").await.as_deref(), Some("small"));
    compactor.abort();
}
