//! Linearisability of concurrent histories.
//!
//! A store names the revision at which each operation took place, so nothing has to be searched for: the order by revision
//! is the claimed order, and a history is linearisable if that order agrees with real time (what ended before another began
//! comes first) and each answer is the one that a single-threaded store would give at that place. Writes whose answer was
//! lost take part if they are found in the log of changes, which a watch has read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_store::{
    Change, Condition, KeyRange, KeyValue, Operation, RangePage, RangeRequest, Result, Revision, Store, StoreLayer,
    Txn, TxnOutcome, WatchRequest, embedded::Options,
};
use evroc_tests::etcd::Etcd;
use futures::StreamExt;
use futures::future::join_all;

const KEYS: [&str; 3] = ["a", "b", "c"];
const WORKERS: u64 = 8;
const OPERATIONS: u64 = 120;

/// A request of a worker and its answer, with the ticks of a common clock before and after.
struct Done {
    began: u64,
    ended: u64,
    what: What,
}

enum What {
    /// A transaction, with the value that only it writes.
    Txn { txn: Txn, value: Bytes, outcome: Option<TxnOutcome> },
    /// All keys.
    Read(RangePage),
}

/// Works on the store from several tasks at once. Operations that fail have an unknown outcome.
async fn history(store: Arc<dyn Store>) -> Vec<Done> {
    let clock = Arc::new(AtomicU64::new(0));
    let workers = (0..WORKERS).map(|worker| {
        let (store, clock) = (store.clone(), clock.clone());
        tokio::spawn(async move {
            let tick = || clock.fetch_add(1, Ordering::SeqCst);
            let mut done = Vec::new();
            let mut seen = Revision::ZERO;
            // A read, a write on the condition that nothing has changed since, and up to two writes: not as many for each worker, or
            // all would keep step, and the condition of none would ever hold.
            let turns = 2 + worker % 3;
            for number in 0..OPERATIONS {
                let (round, turn) = (number / turns, number % turns);
                let key = KEYS[(worker + round) as usize % KEYS.len()];
                let began = tick();
                let what = if turn == 0 {
                    match store.range(RangeRequest::new(KeyRange::all())).await {
                        Ok(page) => {
                            let known = page.items.iter().find(|item| item.key == key);
                            seen = known.map_or(Revision::ZERO, |item| item.mod_revision);
                            What::Read(page)
                        }
                        // It has no effect.
                        Err(_) => continue,
                    }
                } else {
                    let value = Bytes::from(format!("{worker}/{number}"));
                    let mut txn = Txn::new().then(match number % 7 {
                        0 => Operation::delete(key),
                        _ => Operation::put(key, value.clone()),
                    });
                    if turn == 1 && seen > Revision::ZERO {
                        txn = txn.when(Condition::Unchanged(key.into(), seen));
                    }
                    // A delete is recognised by the value written beside it.
                    txn = txn.then(Operation::put(format!("log/{worker}"), value.clone()));
                    let outcome = store.txn(txn.clone()).await.ok();
                    What::Txn { txn, value, outcome }
                };
                done.push(Done { began, ended: tick(), what });
            }
            done
        })
    });
    join_all(workers).await.into_iter().flat_map(|worker| worker.expect("worker ends")).collect()
}

type State = BTreeMap<Bytes, KeyValue>;

/// The states by revision and the revision that wrote each unique value, from the log of changes.
async fn log(store: &dyn Store) -> (BTreeMap<u64, State>, BTreeMap<Bytes, u64>) {
    let newest = store.revision().await.expect("revision");
    let mut stream = store.watch(WatchRequest::new(KeyRange::all(), Revision::ZERO)).await.expect("watch begins");
    let (mut states, mut writers) = (BTreeMap::from([(0, State::new())]), BTreeMap::new());
    let (mut state, mut seen) = (State::new(), Revision::ZERO);
    while seen < newest {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("goes on");
        let batch = next.expect("open").expect("works");
        seen = batch.revision;
        for event in batch.events.iter() {
            match &event.change {
                Change::Put(item) => {
                    writers.insert(item.value.clone(), seen.0);
                    state.insert(item.key.clone(), item.clone());
                }
                Change::Delete { key, .. } => drop(state.remove(key)),
            }
        }
        states.insert(seen.0, state.clone());
    }
    (states, writers)
}

/// Compares the history with the order that its revisions claim.
fn check(history: &[Done], states: &BTreeMap<u64, State>, writers: &BTreeMap<Bytes, u64>) -> Result<(), String> {
    let state_at = |revision: u64| states.range(..=revision).next_back().map(|(_, state)| state).expect("a state");
    // (began, ended, place, whether it changed something)
    let mut places = Vec::new();
    for done in history {
        match &done.what {
            What::Read(page) => {
                let expected: Vec<_> = state_at(page.revision.0).values().cloned().collect();
                if page.items != expected {
                    return Err(format!(
                        "a read at revision {} found {:?}, not {expected:?}",
                        page.revision, page.items
                    ));
                }
                places.push((done.began, done.ended, page.revision.0, false));
            }
            What::Txn { txn, value, outcome } => {
                let written = writers.get(value).copied();
                let place = match (outcome, written) {
                    (Some(TxnOutcome::Committed { revision }), Some(written)) if written == revision.0 => written,
                    (Some(TxnOutcome::Committed { revision }), written) => {
                        return Err(format!("acknowledged at revision {revision}, in the log at {written:?}: {txn:?}"));
                    }
                    (Some(TxnOutcome::ConditionFailed { .. }), Some(written)) => {
                        return Err(format!("refused, but in the log at revision {written}: {txn:?}"));
                    }
                    (Some(TxnOutcome::ConditionFailed { current, revision, .. }), None) => {
                        let expected = state_at(revision.0).get(txn.conditions[0].key());
                        if expected != current.as_ref() || holds(&txn.conditions[0], expected) {
                            return Err(format!(
                                "refused at revision {revision} for {current:?}, there was {expected:?}"
                            ));
                        }
                        places.push((done.began, done.ended, revision.0, false));
                        continue;
                    }
                    // The client got no answer; the write may have been applied, even later than its deadline.
                    (None, Some(written)) => {
                        places.push((done.began, u64::MAX, written, true));
                        continue;
                    }
                    (None, None) => continue,
                };
                let before = state_at(place - 1);
                if let Some(condition) = txn.conditions.first()
                    && !holds(condition, before.get(condition.key()))
                {
                    return Err(format!("applied at revision {place} although {condition:?} did not hold"));
                }
                places.push((done.began, done.ended, place, true));
            }
        }
    }
    // Real time: an operation that ended before another began has an earlier place; a write after a write or a read, a later one.
    let mut ends: Vec<_> = places.iter().map(|(_, ended, place, _)| (*ended, *place)).collect();
    ends.sort_unstable();
    let mut begins = places;
    begins.sort_unstable();
    let (mut ended, mut newest) = (ends.into_iter().peekable(), 0);
    for (began, _, place, is_write) in begins {
        while let Some((_, place)) = ended.next_if(|(end, _)| *end < began) {
            newest = newest.max(place);
        }
        if place < newest || (is_write && place == newest) {
            return Err(format!("an operation at revision {place} began after one at revision {newest} had ended"));
        }
    }
    Ok(())
}

fn holds(condition: &Condition, current: Option<&KeyValue>) -> bool {
    match condition {
        Condition::Absent(_) => current.is_none(),
        Condition::Exists(_) => current.is_some(),
        Condition::Unchanged(_, at) => current.is_some_and(|item| item.mod_revision == *at),
        Condition::Holds(_, value) => current.is_some_and(|item| item.value == *value),
    }
}

async fn check_store(store: Arc<dyn Store>) -> Result<(), String> {
    let history = history(store.clone()).await;
    let outcome = |is: fn(&TxnOutcome) -> bool| {
        let failed = |done: &&Done| matches!(&done.what, What::Txn { txn, outcome: Some(outcome), .. } if !txn.conditions.is_empty() && is(outcome));
        history.iter().filter(failed).count()
    };
    let (applied, refused) =
        (outcome(|it| it.committed().is_some()), outcome(|it| matches!(it, TxnOutcome::ConditionFailed { .. })));
    assert!(applied > 10 && refused > 10, "of the conditional writes {applied} were applied and {refused} refused");
    let (states, writers) = log(&*store).await;
    check(&history, &states, &writers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_the_embedded_store() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("temporary folder");
        check_store(crate::support::open(folder.path()).await).await.expect("linearisable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_a_store_in_an_etcd() {
    let mut subject = crate::contract::etcd("3.4").await;
    check_store(evroc_store::contract_tests::Subject::store(&subject)).await.expect("linearisable");
    evroc_store::contract_tests::Subject::restart(&mut subject).await;
}

/// Members die and come back meanwhile; requests in flight then have an unknown outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_a_cluster_whose_members_die() {
    let started = tokio::task::spawn_blocking(|| Etcd::start_with("3.5", 3, None, &[]));
    let mut etcd = started.await.expect("started").expect("etcd starts");
    let address = etcd.address().parse().expect("an address");
    let store: Arc<dyn Store> = Arc::new(evroc_store::etcd::Options::new(address).open().await.expect("store opens"));
    let working = tokio::spawn(history(store.clone()));
    for member in [0, 1, 2] {
        etcd.kill_member(member);
        let before = store.revision().await.expect("the others answer");
        let goes_on = async {
            while !working.is_finished() && store.revision().await.is_ok_and(|now| now.0 < before.0 + 20) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), goes_on).await.expect("the others go on");
        etcd.start_member(member).expect("member starts");
    }
    let history = working.await.expect("workers end");
    let (states, writers) = log(&*store).await;
    check(&history, &states, &writers).expect("linearisable");
}

/// A store with a fault.
struct Faulty {
    store: Arc<dyn Store>,
    fault: Fault,
    reads: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Every tenth read is of a revision some writes ago.
    StaleRead,
    /// Every tenth transaction is acknowledged without being applied.
    LostWrite,
    /// Conditions are checked beforehand and not with the write.
    CheckThenWrite,
}

#[async_trait]
impl StoreLayer for Faulty {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        if matches!(self.fault, Fault::StaleRead) && number % 10 == 9 {
            let old = self.store.revision().await?.0.saturating_sub(20);
            return self.store.range(request.at(Revision(old))).await;
        }
        self.store.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::LostWrite if number % 10 == 9 => {
                Ok(TxnOutcome::Committed { revision: self.store.revision().await? })
            }
            Fault::CheckThenWrite => {
                let checked = Txn { conditions: txn.conditions.clone(), operations: Vec::new() };
                match self.store.txn(checked).await? {
                    TxnOutcome::Committed { .. } => {
                        // Until another client has written, or none does.
                        let before = self.store.revision().await?;
                        for _ in 0..1_000 {
                            if self.store.revision().await? > before {
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                        self.store.txn(Txn { conditions: Vec::new(), ..txn }).await
                    }
                    refused => Ok(refused),
                }
            }
            _ => self.store.txn(txn).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_not_linearisable() {
    for fault in [Fault::StaleRead, Fault::LostWrite, Fault::CheckThenWrite] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Options::new(folder.path()).open().await.expect("store opens");
        let faulty = Faulty { store: Arc::new(store), fault, reads: AtomicU64::new(0) };
        let found = check_store(Arc::new(faulty)).await;
        assert!(found.is_err(), "{fault:?} was not found");
    }
}
