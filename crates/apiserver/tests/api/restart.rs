//! What a server finds when it starts over a store that has been used.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evroc_store::EmbeddedStore;

use crate::support::{DISKS, TestServer, disk, names};

/// Opens a store as soon as its former owner has let go of it.
pub async fn reopen(dir: &Path) -> Arc<EmbeddedStore> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match EmbeddedStore::open(dir.join("store")).await {
            Ok(store) => return Arc::new(store),
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (server, admin) = TestServer::with_demo().await;
    let made = admin.create(DISKS, &disk("a", 5)).await;
    let TestServer { api, dir } = server;
    api.shut_down();
    drop((api, admin));
    let store = reopen(dir.path()).await;
    let server = TestServer::start_over(dir, store, |it| it).await;
    let admin = server.admin();
    let (_, list) = admin.get(DISKS).await;
    assert_eq!(names(&list), ["a"]);
    assert_eq!(list["items"][0], made);
}
