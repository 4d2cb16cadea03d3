//! The start of a server over a store that has been used.

use crate::support::{DISKS, TestServer, disk, names};

#[tokio::test]
async fn acknowledged_writes_exist_after_a_restart() {
    let (server, admin) = TestServer::with_demo().await;
    let made = admin.create(DISKS, &disk("a", 5)).await;
    let TestServer { api, state } = server;
    api.shut_down();
    drop((api, admin));
    let server = TestServer::start_over(state, |it| it).await;
    let admin = server.admin();
    let (_, list) = admin.get(DISKS).await;
    assert_eq!(names(&list), ["a"]);
    assert_eq!(list["items"][0], made);
}
