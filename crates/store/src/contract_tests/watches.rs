//! Order, completeness, compaction, progress.

use std::collections::BTreeMap;

use super::{Subject, commit, delete, describe, events_until, get, next, put, text, watch};
use crate::contract::{Change, KeyRange, Operation, RangeRequest, Revision, Txn, WatchRequest};
use crate::error::StoreError;

/// From the past into the present without a gap.
pub async fn a_watch_continues_from_the_past(mut subject: Box<dyn Subject>) {
    let store = subject.store();
    let first = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    let txn =
        Txn::new().then(Operation::put("b", "3")).then(Operation::put("a", "4")).then(Operation::delete("never was"));
    let last = commit(&store, txn).await;
    let expected = ["a=2 (was 1)", "a=- (was 2)", "b=3 (was -)", "a=4 (was -)"];
    let mut stream = watch(&store, KeyRange::all(), first).await;
    assert_eq!(describe(&events_until(&mut stream, last).await), expected);
    let later = put(&store, "b", "5").await;
    assert_eq!(describe(&events_until(&mut stream, later).await), ["b=5 (was 3)"]);
    let later = delete(&store, "b").await;
    let events = events_until(&mut stream, later).await;
    assert_eq!(describe(&events), ["b=- (was 5)"]);
    assert_eq!(events[0].0, later);
    drop((stream, store));

    subject.restart().await;
    let store = subject.store();
    let mut stream = watch(&store, KeyRange::all(), Revision::ZERO).await;
    let events = describe(&events_until(&mut stream, later).await);
    assert_eq!(events[0], "a=1 (was -)");
    assert_eq!(events[1..5], expected);
    assert_eq!(events[5..], ["b=5 (was 3)", "b=- (was 5)"]);

    // Without previous values the previous revision is still reported.
    let request = WatchRequest::new(KeyRange::all(), first).without_previous_values();
    let mut stream = store.watch(request).await.expect("watch begins");
    let newest = put(&store, "a", "6").await;
    for (_, event) in events_until(&mut stream, newest).await {
        let previous = event.previous.as_ref();
        assert!(previous.is_none_or(|previous| previous.value.is_none()));
        if let Change::Put(item) = &event.change {
            assert_eq!(previous.is_none(), item.create_revision == item.mod_revision);
        }
    }
}

/// Other keys only move the progress.
pub async fn a_watch_sees_only_its_range(subject: Box<dyn Subject>) {
    let store = subject.store();
    let start = store.revision().await.expect("revision");
    let mut live = watch(&store, KeyRange::prefix("b/"), start).await;
    put(&store, "a/1", "1").await;
    let txn =
        Txn::new().then(Operation::put("a/2", "2")).then(Operation::put("b/1", "3")).then(Operation::put("b0", "4"));
    commit(&store, txn).await;
    put(&store, "b/2", "5").await;
    let last = put(&store, "c", "6").await;
    let expected = ["b/1=3 (was -)", "b/2=5 (was -)"];
    assert_eq!(describe(&events_until(&mut live, last).await), expected);
    let mut late = watch(&store, KeyRange::prefix("b/"), start).await;
    assert_eq!(describe(&events_until(&mut late, last).await), expected);
    let mut single = watch(&store, KeyRange::single("b/2"), start).await;
    assert_eq!(describe(&events_until(&mut single, last).await), expected[1..]);
}

/// Watchers that begin at different times see one history, and it adds up to the state.
pub async fn watchers_see_the_same_order_while_writers_write(subject: Box<dyn Subject>) {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let store = subject.store();
    let start = store.revision().await.expect("revision");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..WRITES {
                    let own = format!("own/{writer}/{number}");
                    let shared = format!("shared/{}", number % 5);
                    let txn = Txn::new().then(Operation::put(own, number.to_string()));
                    let txn = if (number + writer) % 4 == 0 {
                        txn.then(Operation::delete(shared))
                    } else {
                        txn.then(Operation::put(shared, format!("{writer}.{number}")))
                    };
                    commit(&store, txn).await;
                }
            })
        })
        .collect();
    let end = Revision(start.0 + (WRITERS * WRITES) as u64);
    let mut watchers = Vec::new();
    for _ in 0..4 {
        let watched = store.clone();
        watchers.push(tokio::spawn(async move {
            let mut stream = watch(&watched, KeyRange::all(), start).await;
            events_until(&mut stream, end).await
        }));
        let now = store.revision().await.expect("revision");
        put(&store, "tick", "").await;
        assert!(store.revision().await.expect("revision") > now);
    }
    for writer in writers {
        writer.await.expect("writer finishes");
    }
    let mut histories = Vec::new();
    for watcher in watchers {
        let history = watcher.await.expect("watcher finishes");
        histories.push(history.into_iter().filter(|(at, _)| *at <= end).collect::<Vec<_>>());
    }
    for history in &histories {
        assert_eq!(describe(history), describe(&histories[0]));
    }
    let mut stream = watch(&store, KeyRange::all(), start).await;
    let last = store.revision().await.expect("revision");
    let mut state = BTreeMap::new();
    let mut seen = start;
    for (revision, event) in events_until(&mut stream, last).await {
        assert!(revision == seen || revision == seen.next(), "{revision} after {seen}");
        seen = revision;
        let previous = event.previous.as_ref().and_then(|p| p.value.clone());
        let key = text(event.key());
        let replaced = match event.change {
            Change::Put(item) => state.insert(key, item.value),
            Change::Delete { .. } => state.remove(&key),
        };
        assert_eq!(replaced, previous);
    }
    let page = store.range(RangeRequest::new(KeyRange::all())).await.expect("read");
    let found: BTreeMap<_, _> = page.items.into_iter().map(|item| (text(&item.key), item.value)).collect();
    assert_eq!(found, state);
}

/// A watch never leaves out compacted revisions: it is refused or ends.
pub async fn a_watch_behind_compaction_gets_an_error(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(put(&store, "a", &number.to_string()).await);
    }
    let at = revisions[5];
    store.compact(at).await.expect("compacted");
    for revision in [Revision::ZERO, revisions[0], revisions[4]] {
        let request = WatchRequest::new(KeyRange::all(), revision);
        let error = match store.watch(request).await {
            Err(error) => error,
            Ok(mut stream) => match next(&mut stream).await {
                Some(Err(error)) => error,
                other => panic!("{other:?}"),
            },
        };
        match error {
            StoreError::Compacted { compacted_at, .. } => assert_eq!(compacted_at, at),
            other => panic!("{other:?}"),
        }
    }
    let mut stream = watch(&store, KeyRange::all(), at).await;
    let events = events_until(&mut stream, revisions[9]).await;
    assert_eq!(describe(&events), ["a=6 (was 5)", "a=7 (was 6)", "a=8 (was 7)", "a=9 (was 8)"]);
    // One that has caught up is not disturbed.
    let last = put(&store, "a", "10").await;
    store.compact(last).await.expect("compacted");
    assert_eq!(describe(&events_until(&mut stream, last).await), ["a=10 (was 9)"]);
    let last = delete(&store, "a").await;
    store.compact(last).await.expect("compacted");
    assert_eq!(describe(&events_until(&mut stream, last).await), ["a=- (was 10)"]);
    assert_eq!(get(&store, "a").await, None);
}

/// A consumer can wait until it has seen everything, whichever keys change.
pub async fn progress_reaches_idle_watchers(subject: Box<dyn Subject>) {
    let store = subject.store();
    let start = put(&store, "other", "0").await;
    let mut stream = watch(&store, KeyRange::prefix("mine/"), start).await;
    assert_eq!(events_until(&mut stream, start).await, []);
    for number in 0..5 {
        let revision = put(&store, "other", &number.to_string()).await;
        assert_eq!(events_until(&mut stream, revision).await, []);
    }
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(watch(&store, KeyRange::prefix("mine/"), start).await);
    }
    let revision = put(&store, "mine/1", "x").await;
    let after = put(&store, "other", "y").await;
    for mut stream in streams {
        let events = events_until(&mut stream, after).await;
        assert_eq!(events.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [revision]);
    }
}
