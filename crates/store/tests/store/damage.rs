//! Damaged files: an error that says which key, or a refusal to open; never a missing or wrong answer.

use std::path::{Path, PathBuf};

use evroc_store::embedded::EmbeddedStore;
use evroc_store::{KeyRange, RangeRequest, Revision, Store, StoreError, WatchRequest};
use futures::StreamExt;
use rusqlite::Connection;

use crate::support::{open, put, value};

fn database(folder: &Path) -> PathBuf {
    folder.join("store.db")
}

/// Changes the bytes in the database file that are `found`.
fn replace(folder: &Path, found: &[u8], with: &[u8]) {
    let mut bytes = std::fs::read(database(folder)).expect("database");
    let at = bytes.windows(found.len()).position(|window| window == found).expect("is in the database");
    bytes[at..at + with.len()].copy_from_slice(with);
    std::fs::write(database(folder), bytes).expect("written");
}

#[tokio::test]
async fn a_flipped_bit_in_a_value_is_reported() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    put(&*store, "before", "1").await;
    let revision = put(&*store, "hurt", "the value as it was written").await;
    put(&*store, "after", "2").await;
    store.close().await;
    replace(folder.path(), b"as it was written", b"as it was wRitten");

    let store = open(folder.path()).await;
    let check = |error: StoreError| match error {
        StoreError::Damaged { key, revision: found, .. } => assert_eq!((&key[..], found), (&b"hurt"[..], revision)),
        other => panic!("{other:?}"),
    };
    check(value(&*store, "hurt").await.expect_err("damaged"));
    check(store.range(RangeRequest::new(KeyRange::all())).await.expect_err("damaged"));
    let mut history = store.watch(WatchRequest::new(KeyRange::all(), Revision::ZERO)).await.expect("watch begins");
    let error = loop {
        match history.next().await.expect("an error") {
            Ok(batch) => assert!(batch.revision < revision),
            Err(error) => break error,
        }
    };
    check(error);
    assert!(history.next().await.is_none());
    assert_eq!(value(&*store, "before").await.expect("read").expect("exists"), "1");
    assert_eq!(value(&*store, "after").await.expect("read").expect("exists"), "2");

    // A watcher that needs the damaged value as the previous one gets an error; the write itself is fine.
    let now = store.revision().await.expect("revision");
    let mut stream = store.watch(WatchRequest::new(KeyRange::all(), now)).await.expect("watch begins");
    put(&*store, "hurt", "healed").await;
    let error = loop {
        match stream.next().await.expect("an error") {
            Ok(batch) => assert!(batch.is_progress_mark()),
            Err(error) => break error,
        }
    };
    check(error);
    assert_eq!(value(&*store, "hurt").await.expect("read").expect("exists"), "healed");
}

#[tokio::test]
async fn a_damaged_key_or_a_missing_row_is_found_at_open() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    for number in 0..10 {
        put(&*store, &format!("a-key-{number}"), "x").await;
    }
    store.close().await;
    let intact = std::fs::read(database(folder.path())).expect("database");
    let refused = async || {
        let error = EmbeddedStore::open(folder.path()).await.err().expect("refused");
        format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
    };
    replace(folder.path(), b"a-key-5", b"a-key-X");
    let message = refused().await;
    assert!(message.contains("a-key-X") && message.contains("revision 6"), "{message}");

    for statement in [
        "DELETE FROM changes WHERE id = 5 << 16",
        "UPDATE changes SET id = 100 << 16 WHERE id = 5 << 16",
        "UPDATE state SET revision = 11",
        "DELETE FROM state",
        "UPDATE changes SET previous = 3 WHERE id = 5 << 16",
    ] {
        std::fs::write(database(folder.path()), &intact).expect("written");
        let conn = Connection::open(database(folder.path())).expect("SQLite opens");
        assert_eq!(conn.execute(statement, []).expect("executed"), 1);
        drop(conn);
        let message = refused().await;
        assert!(message.contains("damaged") || message.contains("state row"), "{statement}: {message}");
    }
    std::fs::write(database(folder.path()), &intact).expect("written");
    open(folder.path()).await;
}

/// Zeroes each block of the file in turn: every key is right or an error.
#[tokio::test]
async fn no_lost_block_goes_unnoticed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    let expected: Vec<_> = (0..60).map(|n| (format!("key/{n}"), vec![b'a' + n as u8 % 26; 100 * (n % 20)])).collect();
    for (key, content) in &expected {
        put(&*store, key, content.clone()).await;
    }
    store.close().await;
    let intact = std::fs::read(database(folder.path())).expect("database");
    let blocks = intact.len() / 4096;
    assert!(blocks > 10);
    let mut noticed = 0;
    for block in 0..blocks {
        let mut bytes = intact.clone();
        bytes[block * 4096..(block + 1) * 4096].fill(0);
        let damaged = tempfile::tempdir().expect("temporary folder");
        std::fs::write(database(damaged.path()), bytes).expect("written");
        std::fs::copy(folder.path().join("acknowledged"), damaged.path().join("acknowledged")).expect("copied");
        let Ok(store) = EmbeddedStore::open(damaged.path()).await else {
            noticed += 1;
            continue;
        };
        let mut errors = 0;
        for (key, content) in &expected {
            match value(&store, key).await {
                Ok(found) => assert_eq!(found.as_deref(), Some(&content[..]), "block {block}, {key}"),
                Err(_) => errors += 1,
            }
        }
        noticed += usize::from(errors > 0);
    }
    // Some blocks are the engine's book-keeping (such as its map of pages) and not needed for reading.
    assert!(noticed + 2 >= blocks, "{noticed} of {blocks}");
}
