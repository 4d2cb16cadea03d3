//! Compare and set, revisions, limits.

use bytes::Bytes;
use futures::future::join_all;

use super::{Subject, commit, delete, get, put, value};
use crate::contract::{Condition, LeaseId, Operation, Revision, Txn, TxnOutcome};
use crate::error::StoreError;

/// The life of one key and its revisions.
pub async fn creates_updates_and_deletes(subject: Box<dyn Subject>) {
    let store = subject.store();
    assert_eq!(get(&store, "a").await, None);
    let created = commit(&store, Txn::create("a", "1")).await;
    let updated = commit(&store, Txn::update("a", created, "2")).await;
    assert_eq!(updated, created.next());
    let item = get(&store, "a").await.expect("key exists");
    assert_eq!((item.create_revision, item.mod_revision), (created, updated));
    assert_eq!((&item.key[..], &item.value[..], item.lease), (&b"a"[..], &b"2"[..], None));
    let removed = commit(&store, Txn::remove("a", updated)).await;
    assert_eq!(get(&store, "a").await, None);
    let again = commit(&store, Txn::create("a", "3")).await;
    assert_eq!(again, removed.next());
    let item = get(&store, "a").await.expect("key exists");
    assert_eq!((item.create_revision, item.mod_revision), (again, again));
    assert_eq!(store.revision().await.expect("revision"), again);
}

/// The first condition that does not hold is named, with the state found.
pub async fn conditions_are_checked_in_order(subject: Box<dyn Subject>) {
    let store = subject.store();
    let a = put(&store, "a", "1").await;
    let b = put(&store, "b", "2").await;
    let failed = |outcome: TxnOutcome| match outcome {
        TxnOutcome::ConditionFailed { index, current, revision } => {
            assert_eq!(revision, b);
            (index, current.map(|item| (item.value, item.mod_revision)))
        }
        TxnOutcome::Committed { .. } => panic!("must not be applied"),
    };
    let key = |name: &str| Bytes::from(name.to_owned());
    let cases = [
        (vec![Condition::Absent(key("a"))], (0, Some((key("1"), a)))),
        (vec![Condition::Exists(key("c"))], (0, None)),
        (vec![Condition::Unchanged(key("c"), a)], (0, None)),
        (vec![Condition::Unchanged(key("a"), b)], (0, Some((key("1"), a)))),
        (vec![Condition::Unchanged(key("a"), Revision::ZERO)], (0, Some((key("1"), a)))),
        (vec![Condition::Holds(key("c"), key(""))], (0, None)),
        (vec![Condition::Holds(key("a"), key("2"))], (0, Some((key("1"), a)))),
        (vec![Condition::Holds(key("a"), key("1")), Condition::Holds(key("b"), key("22"))], (1, Some((key("2"), b)))),
        (
            vec![
                Condition::Exists(key("a")),
                Condition::Unchanged(key("b"), b),
                Condition::Absent(key("b")),
                Condition::Absent(key("a")),
            ],
            (2, Some((key("2"), b))),
        ),
    ];
    for (conditions, expected) in cases {
        let txn = Txn { conditions, operations: vec![Operation::put("x", "never")] };
        let outcome = store.txn(txn.clone()).await.expect("answered");
        assert_eq!(failed(outcome), expected, "{txn:?}");
    }
    assert_eq!(get(&store, "x").await, None);
    assert_eq!(store.revision().await.expect("revision"), b);
    let txn = Txn::new()
        .when(Condition::Exists(key("a")))
        .when(Condition::Unchanged(key("b"), b))
        .when(Condition::Absent(key("c")))
        .when(Condition::Holds(key("b"), key("2")))
        .then(Operation::put("x", "now"));
    commit(&store, txn).await;
    assert_eq!(value(&store, "x").await.as_deref(), Some("now"));
}

/// All operations share one revision and all or none is applied.
pub async fn one_revision_for_all_operations(subject: Box<dyn Subject>) {
    let store = subject.store();
    let first = put(&store, "gone", "1").await;
    let txn = Txn::new()
        .then(Operation::put("a", "1"))
        .then(Operation::delete("gone"))
        .then(Operation::delete("never was"))
        .then(Operation::put("b", "2"));
    let revision = commit(&store, txn).await;
    assert_eq!(revision, first.next());
    assert_eq!(store.revision().await.expect("revision"), revision);
    for key in ["a", "b"] {
        let item = get(&store, key).await.expect("key exists");
        assert_eq!((item.create_revision, item.mod_revision), (revision, revision));
    }
    assert_eq!(get(&store, "gone").await, None);
    let (before, _) = store.get(b"gone", Some(first)).await.expect("old revision is read");
    assert_eq!(before.expect("existed").value, "1");
}

/// Deletes of absent keys and empty transactions change nothing.
pub async fn a_transaction_without_effect_takes_no_revision(subject: Box<dyn Subject>) {
    let store = subject.store();
    let before = put(&store, "a", "1").await;
    assert_eq!(delete(&store, "absent").await, before);
    assert_eq!(commit(&store, Txn::new()).await, before);
    let condition = Condition::Exists("a".into());
    assert_eq!(commit(&store, Txn::new().when(condition)).await, before);
    // The same value again is a change.
    assert_eq!(put(&store, "a", "1").await, before.next());
}

/// Only one of the transactions that expect the same state is applied.
pub async fn exactly_one_of_many_writers_wins(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut revision = put(&store, "counter", "0").await;
    for round in 0..20 {
        let racers = (0..16).map(|racer| {
            let (store, txn) = (store.clone(), Txn::update("counter", revision, racer.to_string()));
            async move { store.txn(txn).await.expect("answered") }
        });
        let outcomes = join_all(racers).await;
        let winners: Vec<_> = outcomes.iter().filter_map(TxnOutcome::committed).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        assert_eq!(winners[0], revision.next());
        let position = outcomes.iter().position(|o| o.committed().is_some()).expect("a winner");
        assert_eq!(value(&store, "counter").await, Some(position.to_string()));
        for outcome in outcomes {
            if let TxnOutcome::ConditionFailed { current, .. } = outcome {
                assert_eq!(current.expect("exists").mod_revision, winners[0]);
            }
        }
        revision = winners[0];
    }
}

/// Requests beyond the contract have no effect.
pub async fn limits_and_nonsense_are_refused(subject: Box<dyn Subject>) {
    let store = subject.store();
    let before = put(&store, "a", "1").await;
    let limits = store.limits();
    let long_key = Bytes::from(vec![b'k'; limits.key_bytes + 1]);
    let too_large = [
        Txn::new().then(Operation::put(long_key.clone(), "")),
        Txn::new().then(Operation::delete(long_key.clone())),
        Txn::new().when(Condition::Exists(long_key)),
        Txn::new().then(Operation::put("b", vec![0; limits.value_bytes + 1])),
        Txn {
            conditions: Vec::new(),
            operations: (0..=limits.operations).map(|number| Operation::put(number.to_string(), "")).collect(),
        },
        Txn { conditions: vec![Condition::Exists("a".into()); limits.operations + 1], operations: Vec::new() },
        Txn {
            conditions: Vec::new(),
            operations: (0..=limits.txn_bytes / limits.value_bytes)
                .map(|number| Operation::put(number.to_string(), vec![0; limits.value_bytes]))
                .collect(),
        },
    ];
    for txn in too_large {
        match store.txn(txn).await {
            Err(StoreError::TooLarge { size, limit, .. }) => assert!(size > limit),
            other => panic!("{other:?}"),
        }
    }
    let invalid = [
        Txn::new().then(Operation::put("", "x")),
        Txn::new().when(Condition::Absent(Bytes::new())),
        Txn::new().then(Operation::put("b", "x")).then(Operation::put("b", "y")),
        Txn::new().then(Operation::put("b", "x")).then(Operation::delete("b")),
    ];
    for txn in invalid {
        match store.txn(txn).await {
            Err(StoreError::InvalidRequest(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let unknown = Operation::Put { key: "b".into(), value: "x".into(), lease: Some(LeaseId(4711)) };
    match store.txn(Txn::new().then(unknown)).await {
        Err(StoreError::LeaseNotFound { id }) => assert_eq!(id, LeaseId(4711)),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.revision().await.expect("revision"), before);
}

/// Values of no bytes and of several megabytes, keys of any bytes.
pub async fn large_and_empty_values_come_back(subject: Box<dyn Subject>) {
    let store = subject.store();
    let large: Bytes = (0..store.limits().value_bytes).map(|n| ((n * 31) >> 3) as u8).collect();
    let odd_key = Bytes::from_static(&[0, 255, 1, 0]);
    commit(&store, Txn::create("large", large.clone())).await;
    commit(&store, Txn::create("empty", "")).await;
    commit(&store, Txn::create(odd_key.clone(), "odd")).await;
    assert_eq!(get(&store, "large").await.expect("exists").value, large);
    assert_eq!(value(&store, "empty").await.as_deref(), Some(""));
    let (odd, _) = store.get(&odd_key, None).await.expect("read");
    assert_eq!(odd.expect("exists").value, "odd");
}
