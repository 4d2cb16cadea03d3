//! SIGKILL in the middle of an upload: the test binary runs itself as the server that is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evroc_registry::{AllowAll, AnyTenant, Registry};

use crate::support::{TestRegistry, digest};

const FOLDER: &str = "EVROC_REGISTRY_CRASH_FOLDER";

/// Not a test by itself: serves the folder that the test below names.
#[tokio::test]
async fn serve_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let registry = Registry::open(folder, Arc::new(AnyTenant)).await.expect("registry opens");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // Not println: the test harness keeps that to itself.
    writeln!(std::io::stderr(), "listening on {}", listener.local_addr().expect("address"))
        .expect("report the address");
    axum::serve(listener, registry.router(Arc::new(AllowAll))).await.expect("serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_during_an_upload_leaves_no_blob() {
    let registry = TestRegistry::new().await;
    let kept = registry.push_image("a", "v1", "1").await;
    let content = vec![5; 8 << 20];
    let digest = digest(&content);
    // After half of the content; and when all of it is received, but not yet finished.
    for sent in [4 << 20, 8 << 20] {
        let path = registry.folder.path().to_owned();
        let content = content.clone();
        tokio::task::spawn_blocking(move || upload_and_kill(&path, &content, sent)).await.expect("killed");
        assert_eq!(registry.unfinished(), 1);
        let again = Registry::open(registry.folder.path(), Arc::new(AnyTenant)).await.expect("registry opens");
        drop(again);
        assert_eq!(registry.unfinished(), 0);
        registry.get(&format!("/v2/a/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");
        assert_eq!(registry.get("/v2/a/manifests/v1").await.expect(200).body, kept);
    }
    registry.push_blob("a", &content).await;
}

/// Starts a server, sends it part of a blob and kills it when that has arrived on disk.
fn upload_and_kill(folder: &Path, content: &[u8], sent: usize) {
    let mut server = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "crash::serve_until_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("server starts");
    let server_lines = BufReader::new(server.stderr.take().expect("piped"));
    let address = server_lines
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
        .expect("server listens");
    let location = begin(&address);
    let mut connection = TcpStream::connect(&address).expect("connects");
    let length = content.len() + 1;
    write!(connection, "PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").expect("sent");
    connection.write_all(&content[..sent]).expect("sent");
    let file = folder.join("uploads").join(location.rsplit('/').next().expect("id"));
    let deadline = Instant::now() + Duration::from_secs(30);
    // The server writes a mebibyte at a time.
    while std::fs::metadata(&file).map_or(0, |file| file.len()) < sent as u64 - (1 << 20) {
        assert!(Instant::now() < deadline, "content arrives on disk");
        std::thread::yield_now();
    }
    server.kill().expect("killed");
    server.wait().expect("ended");
}

fn begin(address: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("connects");
    let request = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answered");
    let location = answer.lines().find_map(|line| line.strip_prefix("location: "));
    location.unwrap_or_else(|| panic!("no location: {answer}")).to_owned()
}
