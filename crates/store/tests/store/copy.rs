//! Stores that move from one backend to another.

use std::sync::Arc;
use std::time::Duration;

use evroc_store::copy::{CopyError, compare, copy};
use evroc_store::embedded::{EmbeddedStore, Options};
use evroc_store::{Operation, Revision, Store, Txn, etcd};
use evroc_tests::etcd::Etcd;

use crate::support::{open, put, value};

/// Enough for several pages and transactions, with empty and large values, odd keys, leases and a past.
async fn fill(store: &dyn Store) {
    for number in 0..350 {
        put(store, &format!("key/{number:04}"), vec![number as u8; number * 7]).await;
        if number % 7 == 0 {
            let txn = Txn::new().then(Operation::delete(format!("key/{:04}", number / 2)));
            store.txn(txn).await.expect("deleted");
        }
    }
    put(store, "large", vec![9; 1_400_000]).await;
    put(store, "\u{0}odd\u{7f}", "").await;
    let lease = store.lease_grant(Duration::from_secs(3000)).await.expect("granted");
    for key in ["leased/1", "leased/2"] {
        let operation = Operation::Put { key: key.into(), value: "x".into(), lease: Some(lease.id) };
        store.txn(Txn::new().then(operation)).await.expect("written");
    }
}

async fn in_etcd(etcd: &Etcd, prefix: &str, base: Revision) -> etcd::EtcdStore {
    let address = format!("{}{prefix}", etcd.address()).parse().expect("an address");
    etcd::Options::new(address).create(base).await.expect("made")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_to_an_etcd_and_back() {
    let etcd = tokio::task::spawn_blocking(|| Etcd::start("3.4")).await.expect("started").expect("etcd starts");
    let first = tempfile::tempdir().expect("temporary folder");
    let original = open(first.path()).await;
    fill(&*original).await;
    let newest = original.revision().await.expect("revision");

    let moved = in_etcd(&etcd, "/moved", newest).await;
    let summary = copy(&*original, &moved).await.expect("copied");
    assert_eq!((summary.revision, summary.keys), (newest, 304));
    // No client gets a revision number that had another meaning before.
    let (item, _) = moved.get(b"key/0349", None).await.expect("read");
    assert!(item.expect("exists").mod_revision > newest);
    assert_eq!(value(&moved, "large").await.expect("read").map(|value| value.len()), Some(1_400_000));

    let second = tempfile::tempdir().expect("temporary folder");
    let base = moved.revision().await.expect("revision");
    let back = Options::new(second.path()).create_at(base).open().await.expect("made");
    let summary_back = copy(&moved, &back).await.expect("copied");
    assert_eq!((summary_back.keys, summary_back.bytes), (summary.keys, summary.bytes));
    compare(&*original, newest, &back).await.expect("the same as in the beginning");
    back.close().await;
    let back = open(second.path()).await;
    assert!(back.revision().await.expect("revision") > base);
    let refused = Options::new(first.path()).create_at(base).open().await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|message| message.contains("in use")), "the first is still open");

    // One difference of each kind is found.
    for (number, (change, message)) in [
        (Operation::put("key/0300", "other"), "values are not the same"),
        (Operation::put("key/0300x", "more"), "original does not have it"),
        (Operation::delete("key/0300"), "copy does not have it"),
        (Operation::delete("leased/2"), "copy does not have it"),
        (Operation::put("leased/2", "x"), "another lease"),
    ]
    .into_iter()
    .enumerate()
    {
        let copied = in_etcd(&etcd, &format!("/copy{number}"), newest).await;
        copy(&*original, &copied).await.expect("copied");
        copied.txn(Txn::new().then(change.clone())).await.expect("changed");
        match compare(&*original, newest, &copied).await {
            Err(error @ CopyError::Different { .. }) => assert!(error.to_string().contains(message), "{error}"),
            found => panic!("{change:?}: {found:?}"),
        }
        copied.erase().await.expect("erased");
        // It is as if it had never been.
        let again = in_etcd(&etcd, &format!("/copy{number}"), Revision(5)).await;
        assert_eq!(again.revision().await.expect("revision"), Revision(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_do_not_fit_are_named() {
    let etcd = tokio::task::spawn_blocking(|| Etcd::start("3.4")).await.expect("started").expect("etcd starts");
    let folder = tempfile::tempdir().expect("temporary folder");
    let original = open(folder.path()).await;
    put(&*original, "too/large", vec![0; 2 << 20]).await;
    let copied = in_etcd(&etcd, "/x", Revision(1)).await;
    let message = copy(&*original, &copied).await.expect_err("it does not fit").to_string();
    assert!(message.contains("too/large") && message.contains("2097152"), "{message}");
}

/// A backup is taken by another connection than the store's own, while it is written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_beside_a_running_store() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    fill(&*store).await;
    let before = store.revision().await.expect("revision");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                put(&*store, "counter", written.to_string()).await;
                written += 1;
            }
        })
    };
    let restored = tempfile::tempdir().expect("temporary folder");
    let revision = EmbeddedStore::backup_folder(folder.path(), restored.path().join("store.db")).await.expect("taken");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.expect("writer ends");
    assert!(revision >= before);
    let copied = open(restored.path()).await;
    compare(&*store, revision, &*copied).await.expect("what the store was at that revision");
}
