//! Locks, formats, disk space.

use evroc_store::embedded::{EmbeddedStore, FORMAT_VERSION};
use evroc_store::{Store, StoreError};
use rusqlite::Connection;

use crate::support::{open, put, try_put, value};

async fn refused(folder: &std::path::Path) -> String {
    EmbeddedStore::open(folder).await.err().expect("refused").to_string()
}

#[tokio::test]
async fn a_folder_is_opened_once() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    let message = refused(folder.path()).await;
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    drop(store);
    let store = open(folder.path()).await;
    store.close().await;
    store.close().await;
    assert!(matches!(try_put(&*store, "a", "1").await, Err(StoreError::Closed)));
    assert!(matches!(store.revision().await, Err(StoreError::Closed)));
    open(folder.path()).await;
}

#[tokio::test]
async fn other_formats_are_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    put(&*store, "a", "1").await;
    store.close().await;
    let path = folder.path().join("store.db");
    let set = |pragma: &str, value: i32| {
        let conn = Connection::open(&path).expect("SQLite opens");
        conn.pragma_update(None, pragma, value).expect("updated");
    };
    for (format, advice) in [(FORMAT_VERSION + 1, "newer version"), (FORMAT_VERSION - 1, "version that wrote it")] {
        set("user_version", format);
        let message = refused(folder.path()).await;
        assert!(message.contains(&format!("format {format}")), "{message}");
        assert!(message.contains(&format!("format {FORMAT_VERSION}")), "{message}");
        assert!(message.contains(advice), "{message}");
    }
    set("user_version", FORMAT_VERSION);
    assert!(value(&*open(folder.path()).await, "a").await.expect("read").is_some());
    set("application_id", 0);
    assert!(refused(folder.path()).await.contains("not a store"));
    std::fs::write(&path, "something else, long enough to be read as a header of a database").expect("written");
    assert!(refused(folder.path()).await.contains("store.db"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_store() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    for number in 0..100 {
        put(&*store, &format!("key/{number}"), number.to_string()).await;
    }
    let restored = tempfile::tempdir().expect("temporary folder");
    let target = restored.path().join("store.db");
    let revision = store.backup(&target).await.expect("backed up");
    assert_eq!(revision.0, 100);
    put(&*store, "later", "x").await;
    assert!(store.backup(&target).await.is_err(), "an existing file is not overwritten");
    let copy = open(restored.path()).await;
    assert_eq!(copy.revision().await.expect("revision"), revision);
    assert_eq!(value(&*copy, "key/99").await.expect("read").expect("exists"), "99");
    assert!(value(&*copy, "later").await.expect("read").is_none());
}

/// With compaction, rewriting the same keys does not grow the files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_does_not_grow_the_disk() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    let size = || -> u64 {
        let files = std::fs::read_dir(folder.path()).expect("folder");
        files.map(|file| file.expect("file").metadata().expect("metadata").len()).sum()
    };
    let mut largest = 0;
    for round in 0..60u32 {
        let writes = (0..200u32).map(|key| {
            let store = store.clone();
            async move { put(&*store, &format!("key/{key}"), vec![(round + key) as u8; 4096]).await }
        });
        let newest = futures::future::join_all(writes).await.into_iter().max().expect("writes");
        store.compact(newest).await.expect("compacted");
        largest = largest.max(size());
    }
    // 48 MB were written, 0.8 MB are alive.
    assert!(largest < 20 << 20, "{largest} bytes");
    for key in 0..200 {
        assert!(value(&*store, &format!("key/{key}")).await.expect("read").is_some());
    }
    store.close().await;
    assert!(size() < 8 << 20, "{} bytes", size());
    open(folder.path()).await;
}
