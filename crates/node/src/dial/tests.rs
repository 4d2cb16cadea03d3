use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::DialServer;
use super::*;

/// A namespace in a temporary folder that is removed with this.
struct TestNetns {
    folder: tempfile::TempDir,
    netns: Arc<Netns>,
}

impl TestNetns {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let netns = Netns::ensure(&folder.path().join(name)).unwrap();
        Self { folder, netns: Arc::new(netns) }
    }

    /// A listener in the namespace.
    fn listen(&self) -> (tokio::net::TcpListener, SocketAddr) {
        let listener = self.netns.run(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (tokio::net::TcpListener::from_std(listener).unwrap(), address)
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        Netns::remove(self.netns.path()).unwrap();
        assert!(!self.netns.path().exists());
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn connects_inside_and_stays_outside() {
    let test = TestNetns::new("a");
    let (listener, address) = test.listen();
    let dialer = Dialer::start().unwrap();
    let before = Netns::current().unwrap();
    let (client, server) = tokio::join!(dialer.connect(&test.netns, address), listener.accept());
    client.unwrap().write_all(b"ping").await.unwrap();
    let mut text = String::new();
    server.unwrap().0.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ping");
    assert!(Netns::current().unwrap().is_same(&before));
    // The same address outside has no listener of ours, and a fresh namespace none at all.
    drop(listener);
    let error = dialer.connect(&test.netns, address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
#[ignore = "needs root"]
async fn namespaces_are_made_once_and_removed_fully() {
    let test = TestNetns::new("a");
    let again = Netns::ensure(test.netns.path()).unwrap();
    assert!(again.is_same(&test.netns));
    // The leftover of a reboot: a plain file.
    let stale = test.folder.path().join("stale");
    std::fs::write(&stale, "").unwrap();
    assert!(Netns::open(&stale).unwrap_err().is_not_found());
    Netns::ensure(&stale).unwrap();
    Netns::remove(&stale).unwrap();
    Netns::remove(&stale).unwrap();
    assert!(!stale.exists());
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_gateways_client_gets_a_connected_socket() {
    use evroc_gateway::dial::{DialClient, DialError};

    let test = TestNetns::new("replica-1a2b");
    let (listener, address) = test.listen();
    let socket = test.folder.path().join("dial.sock");
    let server = DialServer::bind(&socket, test.folder.path(), 0, Dialer::start().unwrap()).unwrap();
    let server = tokio::spawn(server.run());
    let client = DialClient::new(&socket);
    for round in 0..3_u8 {
        let mut ours = client.dial("1a2b", address.port()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(&[round]).await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), round);
        theirs.write_all(b"back").await.unwrap();
        drop(theirs);
        let mut back = String::new();
        ours.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back");
    }
    let many: Vec<_> = (0..50).map(|_| client.dial("1a2b", address.port())).collect();
    for stream in futures::future::join_all(many).await {
        stream.unwrap();
    }
    assert!(matches!(client.dial("other", address.port()).await, Err(DialError::NotFound { .. })));
    assert!(matches!(client.dial("../x", 1).await, Err(DialError::Failed { .. })));
    drop(listener);
    // A process that another test is about to start has the listener too, until it runs its own program.
    let refused = async {
        while client.dial("1a2b", address.port()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        client.dial("1a2b", address.port()).await
    };
    let refused =
        tokio::time::timeout(std::time::Duration::from_secs(30), refused).await.expect("the listener is closed");
    assert!(matches!(refused, Err(DialError::Refused { .. })));
    server.abort();
    let _ = server.await;
    assert!(matches!(client.dial("1a2b", 1).await, Err(DialError::Node { .. })));
    // The node is restarted: idle connections of the client are dead, it finds that out by itself.
    let server = DialServer::bind(&socket, test.folder.path(), 0, Dialer::start().unwrap()).unwrap();
    let server = tokio::spawn(server.run());
    assert!(matches!(client.dial("1a2b", address.port()).await, Err(DialError::Refused { .. })));
    server.abort();
}
