//! The recorded workload: a process that uses every writing operation of the store, and reports each acknowledgement by a system
//! call of its own, so that the record shows what had been promised at every moment.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use evroc_store::embedded::Options;
use evroc_store::{Operation, Revision, Store, Txn};
use futures::future::join_all;

/// The folder of the store; set only in the process that is recorded.
pub const FOLDER: &str = "EVROC_STORE_RECORD_FOLDER";
/// Begins the line of an acknowledgement: then the revision and the keys of a transaction.
pub const ACK: &str = "acknowledged:";

const ROUNDS: usize = 14;
const WRITERS: usize = 5;

/// The value that a key is written with, the only one in its life.
pub fn content(key: &str) -> Vec<u8> {
    let length = 40 + key.bytes().map(usize::from).sum::<usize>() * 37 % 2500;
    key.bytes().cycle().take(length).collect()
}

/// The keys that one transaction writes: all of them or none exist.
pub fn keys(round: usize, writer: usize) -> Vec<String> {
    (0..1 + (round + writer) % 3).map(|part| format!("txn/{round}/{writer}/{part}")).collect()
}

/// All transactions, by their first key.
pub fn all() -> BTreeMap<String, Vec<String>> {
    let each = (0..ROUNDS).flat_map(|round| (0..WRITERS).map(move |writer| keys(round, writer)));
    each.map(|keys| (keys[0].clone(), keys)).collect()
}

fn print_acknowledged(revision: Revision, keys: &[String]) {
    let line = format!("{ACK}{revision} {}\n", keys.join(" "));
    std::io::stderr().write_all(line.as_bytes()).expect("told");
}

async fn open(folder: &Path) -> impl Store {
    // So often that the log is copied and begun again several times.
    Options::new(folder).readers(1).checkpoint_after(96 << 10).open().await.expect("store opens")
}

/// Not a test by itself: works in the folder that the recorder names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut store = open(folder).await;
    for round in 0..ROUNDS {
        // Several at once, so that they share syncs.
        join_all((0..WRITERS).map(|writer| {
            let store = &store;
            async move {
                let keys = keys(round, writer);
                let txn = keys.iter().fold(Txn::new(), |txn, key| txn.then(Operation::put(key.clone(), content(key))));
                let revision = store.txn(txn).await.expect("applied").committed().expect("no conditions");
                print_acknowledged(revision, &keys);
            }
        }))
        .await;
        // Something to forget: rewritten, deleted, ended with a lease.
        let lease = store.lease_grant(Duration::from_secs(1000)).await.expect("granted");
        let churn = Txn::new()
            .then(Operation::put("churn", vec![round as u8; 1500]))
            .then(Operation::Put { key: "leased".into(), value: "x".into(), lease: Some(lease.id) })
            .then(Operation::delete("gone"));
        store.txn(churn).await.expect("applied");
        store.txn(Txn::new().then(Operation::put("gone", "soon"))).await.expect("applied");
        store.lease_revoke(lease.id).await.expect("revoked");
        let newest = store.revision().await.expect("revision");
        if round % 3 == 2 {
            store.compact(Revision(newest.0 - 5)).await.expect("compacted");
        }
        if round == ROUNDS / 4 {
            store.close().await;
            drop(store);
            store = open(folder).await;
        }
    }
    // It dies here, without closing.
    std::process::exit(0);
}
