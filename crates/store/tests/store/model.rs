//! Random operations on the store and on a model that is too simple to be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evroc_store::contract_tests::Subject;
use evroc_store::{
    Change, Condition, Event, KeyRange, KeyValue, Operation, Previous, RangeRequest, Revision, Store, StoreError, Txn,
    TxnOutcome, WatchRequest, WatchStream,
};
use futures::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};

/// Keys that are prefixes of each other and neighbours in order.
const KEYS: [&str; 6] = ["a", "a/", "a/1", "a0", "b", "b\u{0}"];

#[derive(Clone, Debug)]
enum Step {
    /// Positions in [`KEYS`] with what to require and what to write (`None` deletes).
    Txn(Vec<(usize, Required)>, BTreeMap<usize, Option<u8>>),
    /// Reads a key and a range of a revision this far back.
    Read {
        key: usize,
        from: usize,
        to: usize,
        limit: Option<usize>,
        ago: u64,
    },
    Compact {
        ago: u64,
    },
    /// Begins a watch at a revision this far back.
    Watch {
        from: usize,
        to: usize,
        ago: u64,
    },
    /// Reads all watches to the end.
    Drain,
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Required {
    Absent,
    Exists,
    /// Unchanged since the revision that is the newest, or an older one.
    Newest,
    Older,
    /// Its newest value, or another one.
    Value,
    OtherValue,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS.len();
    let required = prop_oneof![
        1 => Just(Required::Absent),
        1 => Just(Required::Exists),
        3 => Just(Required::Newest),
        1 => Just(Required::Older),
        2 => Just(Required::Value),
        1 => Just(Required::OtherValue)
    ];
    let conditions = prop::collection::vec((key.clone(), required), 0..3);
    let operations = prop::collection::btree_map(key.clone(), prop::option::weighted(0.7, any::<u8>()), 0..4);
    let limit = prop::option::of(0..4usize);
    let step = prop_oneof![
        12 => (conditions, operations).prop_map(|(conditions, operations)| Step::Txn(conditions, operations)),
        4 => (key.clone(), key.clone(), key.clone(), limit, 0..12u64)
            .prop_map(|(key, from, to, limit, ago)| Step::Read { key, from, to, limit, ago }),
        1 => (0..8u64).prop_map(|ago| Step::Compact { ago }),
        2 => (key.clone(), key, 0..12u64).prop_map(|(from, to, ago)| Step::Watch { from, to, ago }),
        1 => Just(Step::Drain),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

type State = BTreeMap<Bytes, KeyValue>;

/// Every state that the store was ever in.
struct Model {
    /// By revision.
    states: Vec<State>,
    /// By revision.
    events: Vec<Vec<Event>>,
    compacted_at: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// A revision in which nothing changes.
    fn idle(&mut self) {
        self.states.push(self.state().clone());
        self.events.push(Vec::new());
    }

    fn state(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    fn apply(&mut self, txn: &Txn) -> TxnOutcome {
        let revision = Revision(self.revision());
        for (index, condition) in txn.conditions.iter().enumerate() {
            let current = self.state().get(condition.key());
            let holds = match condition {
                Condition::Absent(_) => current.is_none(),
                Condition::Exists(_) => current.is_some(),
                Condition::Unchanged(_, at) => current.is_some_and(|item| item.mod_revision == *at),
                Condition::Holds(_, value) => current.is_some_and(|item| item.value == *value),
            };
            if !holds {
                return TxnOutcome::ConditionFailed { index, current: current.cloned(), revision };
            }
        }
        let revision = revision.next();
        let (mut state, mut events) = (self.state().clone(), Vec::new());
        for operation in &txn.operations {
            let key = operation.key();
            let before = state.remove(key);
            let change = match operation {
                Operation::Delete { .. } if before.is_none() => continue,
                Operation::Delete { key } => Change::Delete { key: key.clone(), revision },
                Operation::Put { key, value, lease } => {
                    let item = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.as_ref().map_or(revision, |item| item.create_revision),
                        mod_revision: revision,
                        lease: *lease,
                    };
                    state.insert(key.clone(), item.clone());
                    Change::Put(item)
                }
            };
            let previous = before.map(|item| Previous { mod_revision: item.mod_revision, value: Some(item.value) });
            events.push(Event { change, previous });
        }
        if events.is_empty() {
            return TxnOutcome::Committed { revision: Revision(self.revision()) };
        }
        self.states.push(state);
        self.events.push(events);
        TxnOutcome::Committed { revision }
    }

    fn range(&self, range: &KeyRange, at: u64) -> Vec<KeyValue> {
        self.states[at as usize].values().filter(|item| range.contains(&item.key)).cloned().collect()
    }
}

struct Watch {
    range: KeyRange,
    seen: u64,
    stream: WatchStream,
}

async fn run(mut subject: Box<dyn Subject>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model { states: vec![State::new()], events: vec![Vec::new()], compacted_at: 0 };
    let mut watches = Vec::new();
    let mut store = subject.store();
    for step in steps {
        match step {
            Step::Txn(conditions, operations) => {
                let txn = txn(&model, conditions, operations);
                let expected = model.apply(&txn);
                prop_assert_eq!(store.txn(txn).await?, expected);
            }
            Step::Read { key, from, to, limit, ago } => {
                let at = model.revision().saturating_sub(ago);
                read(&store, &model, KEYS[key], &range(from, to), limit, at, ago == 0).await?;
            }
            Step::Compact { ago } => {
                let at = model.revision().saturating_sub(ago);
                store.compact(Revision(at)).await?;
                model.compacted_at = model.compacted_at.max(at);
            }
            Step::Watch { from, to, ago } => {
                let (range, seen) = (range(from, to), model.revision().saturating_sub(ago));
                match store.watch(WatchRequest::new(range.clone(), Revision(seen))).await {
                    Ok(stream) => watches.push(Watch { range, seen, stream }),
                    Err(StoreError::Compacted { .. }) => prop_assert!(seen < model.compacted_at),
                    Err(error) => return Err(error.into()),
                }
            }
            Step::Drain => {
                let mut open = Vec::new();
                for watch in watches.drain(..) {
                    open.extend(drain(watch, &model).await?);
                }
                watches = open;
            }
            Step::Restart => {
                watches.clear();
                drop(store);
                subject.restart().await;
                store = subject.store();
                for _ in 0..subject.restart_takes() {
                    model.idle();
                }
            }
        }
        prop_assert_eq!(store.revision().await?, Revision(model.revision()));
        prop_assert_eq!(store.compacted_at().await?, Revision(model.compacted_at));
    }
    for watch in watches {
        drain(watch, &model).await?;
    }
    for at in model.compacted_at..=model.revision() {
        let page = store.range(RangeRequest::new(KeyRange::all()).at(Revision(at))).await?;
        prop_assert_eq!(page.items, model.range(&KeyRange::all(), at));
    }
    // Not later, while another one is looked at.
    store.close().await;
    Ok(())
}

fn range(from: usize, to: usize) -> KeyRange {
    if from == to { KeyRange::prefix(KEYS[from]) } else { KeyRange::new(KEYS[from], KEYS[to]) }
}

fn txn(model: &Model, conditions: Vec<(usize, Required)>, operations: BTreeMap<usize, Option<u8>>) -> Txn {
    let mut txn = Txn::new();
    for (key, required) in conditions {
        let key = Bytes::from_static(KEYS[key].as_bytes());
        let newest = model.state().get(&key).map_or(Revision::ZERO, |item| item.mod_revision);
        let value = model.state().get(&key).map(|item| item.value.clone()).unwrap_or_default();
        txn = txn.when(match required {
            Required::Absent => Condition::Absent(key),
            Required::Exists => Condition::Exists(key),
            Required::Newest => Condition::Unchanged(key, newest),
            Required::Older => Condition::Unchanged(key, Revision(newest.0.saturating_sub(1))),
            Required::Value => Condition::Holds(key, value),
            Required::OtherValue => Condition::Holds(key, [&value[..], b"x"].concat().into()),
        });
    }
    for (key, value) in operations {
        txn = txn.then(match value {
            Some(value) => Operation::put(KEYS[key], vec![value; usize::from(value)]),
            None => Operation::delete(KEYS[key]),
        });
    }
    txn
}

async fn read(
    store: &Arc<dyn Store>,
    model: &Model,
    key: &str,
    range: &KeyRange,
    limit: Option<usize>,
    at: u64,
    newest: bool,
) -> Result<(), TestCaseError> {
    let requested = (!newest).then_some(Revision(at));
    let request = RangeRequest { range: range.clone(), limit, at: requested, count: true };
    if at < model.compacted_at {
        let is_told = |error: &StoreError| matches!(error, StoreError::Compacted { compacted_at, .. } if compacted_at.0 == model.compacted_at);
        prop_assert!(store.get(key.as_bytes(), requested).await.is_err_and(|error| is_told(&error)));
        prop_assert!(store.range(request).await.is_err_and(|error| is_told(&error)));
        return Ok(());
    }
    let expected = model.states[at as usize].get(key.as_bytes()).cloned();
    prop_assert_eq!(store.get(key.as_bytes(), requested).await?, (expected, Revision(at)));
    let page = store.range(request).await?;
    let mut expected = model.range(range, at);
    let total = expected.len();
    expected.truncate(limit.unwrap_or(usize::MAX));
    prop_assert_eq!((page.revision, page.count), (Revision(at), Some(total as u64)));
    prop_assert_eq!(page.more, expected.len() < total);
    prop_assert_eq!(page.items, expected);
    Ok(())
}

/// Reads a watch up to the newest revision; `None` if it got the error that it is behind a compaction.
async fn drain(mut watch: Watch, model: &Model) -> Result<Option<Watch>, TestCaseError> {
    while watch.seen < model.revision() {
        let next = tokio::time::timeout(Duration::from_secs(30), watch.stream.next()).await;
        let batch = match next.map_err(|_| TestCaseError::fail("watch makes no progress"))? {
            Some(Ok(batch)) => batch,
            Some(Err(StoreError::Compacted { .. })) => {
                prop_assert!(watch.seen < model.compacted_at);
                return Ok(None);
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(TestCaseError::fail("watch ended")),
        };
        prop_assert!(batch.revision.0 >= watch.seen);
        // The revisions between must not have concerned the range.
        for revision in watch.seen + 1..=batch.revision.0 {
            let mut expected = model.events[revision as usize].clone();
            expected.retain(|event| watch.range.contains(event.key()));
            let found = if revision == batch.revision.0 { &batch.events[..] } else { &[] };
            prop_assert_eq!(found, &expected[..], "revision {}", revision);
        }
        watch.seen = watch.seen.max(batch.revision.0);
    }
    Ok(Some(watch))
}

/// More cases by PROPTEST_CASES.
fn config(cases: u32) -> Config {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { cases };
    Config { cases, failure_persistence: None, ..Config::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

#[test]
fn the_embedded_store_behaves_like_the_model() {
    let runtime = runtime();
    proptest!(config(64), |(steps in steps())| {
        runtime.block_on(async {
            let subject = crate::contract::embedded().await;
            run(Box::new(subject), steps).await
        })?;
    });
}

#[test]
fn a_store_in_an_etcd_behaves_like_the_model() {
    let runtime = runtime();
    for version in ["3.4", "3.5"] {
        let etcd = evroc_tests::etcd::Etcd::start(version).expect("etcd starts");
        let number = std::sync::atomic::AtomicUsize::new(0);
        proptest!(config(24), |(steps in steps())| {
            runtime.block_on(async {
                // One server for all cases: each has a prefix of its own, and there is no other writer.
                let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let subject = crate::contract::Prefixed::open(format!("{}/case/{number}", etcd.address())).await;
                run(Box::new(subject), steps).await
            })?;
        });
    }
}
