//! SIGKILL and failing writes: the test binary runs itself as the process that dies.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use evroc_store::embedded::EmbeddedStore;
use evroc_store::{Revision, Store};
use rusqlite::Connection;

use crate::support::{open, put, try_put, value};

const FOLDER: &str = "EVROC_STORE_CRASH_FOLDER";
const ROUND: &str = "EVROC_STORE_CRASH_ROUND";
const WRITERS: usize = 16;

/// An acknowledged write: the same key is never written twice.
#[derive(Clone, Debug)]
struct Ack {
    key: String,
    revision: Revision,
}

fn content(key: &str) -> Vec<u8> {
    let length = 200 + key.len() * 97 % 1500;
    key.bytes().cycle().take(length).collect()
}

/// Not a test by itself: writes to the folder that a test below names, and reports each acknowledged write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let round = std::env::var(ROUND).expect("round");
    let store = Arc::new(EmbeddedStore::open(&folder).await.expect("store opens"));
    let writers = (0..WRITERS).map(|writer| {
        let (store, round) = (store.clone(), round.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let key = format!("{round}/{writer}/{number}");
                let Ok(revision) = try_put(&*store, &key, content(&key)).await else { return };
                // One write per line, so that lines of several writers do not mix.
                let line = format!("ack {key} {revision}\n");
                std::io::stderr().write_all(line.as_bytes()).expect("told");
                // Something to forget, so that kills meet compaction too.
                put(&*store, &format!("counter/{writer}"), number.to_string()).await;
                if writer == 0 && number % 50 == 49 {
                    store.compact(Revision(revision.0 - 20)).await.expect("compacted");
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer ends");
    }
}

fn start(folder: &Path, round: &str, wrapper: Option<&str>) -> Child {
    let binary = std::env::current_exe().expect("own path");
    let mut command = match wrapper {
        None => Command::new(binary),
        Some(script) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]).arg(binary);
            shell
        }
    };
    command
        .args(["--exact", "crash::write_until_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROUND, round)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("writer starts")
}

/// Reads acknowledgements, kills after `kill_after` of them, and returns all reported ones.
fn acks(mut child: Child, kill_after: usize) -> (Vec<Ack>, std::process::ExitStatus) {
    let child_lines = BufReader::new(child.stderr.take().expect("piped"));
    let mut acks = Vec::new();
    for line in child_lines.lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        if words.next() != Some("ack") {
            continue;
        }
        // The last line may be cut off.
        let (Some(key), Some(revision)) = (words.next(), words.next().and_then(|n| n.parse().ok())) else {
            continue;
        };
        acks.push(Ack { key: key.to_owned(), revision: Revision(revision) });
        if acks.len() == kill_after {
            child.kill().expect("killed");
        }
    }
    (acks, child.wait().expect("ended"))
}

async fn check(folder: &Path, acks: &[Ack]) {
    let store = open(folder).await;
    for ack in acks {
        let (item, _) = store.get(ack.key.as_bytes(), None).await.expect("read");
        let item = item.unwrap_or_else(|| panic!("acknowledged write is lost: {ack:?}"));
        assert_eq!((&item.value[..], item.mod_revision), (&content(&ack.key)[..], ack.revision), "{ack:?}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut all = Vec::new();
    for (round, kill_after) in [1, 333, 2000, 40, 700].into_iter().enumerate() {
        let child = start(folder.path(), &round.to_string(), None);
        let (acks, status) = tokio::task::spawn_blocking(move || acks(child, kill_after)).await.expect("killed");
        assert_eq!(status.signal(), Some(9));
        assert!(acks.len() >= kill_after);
        all.extend(acks);
        check(folder.path(), &all).await;
    }
}

/// When writing fails, the process stops; acknowledged writes exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_write_stops_the_process() {
    let folder = tempfile::tempdir().expect("temporary folder");
    // No file may grow beyond 2 MiB, and the signal that would say so is ignored: writes fail.
    let child = start(folder.path(), "0", Some("trap '' XFSZ; ulimit -f 4096"));
    let (acks, status) = tokio::task::spawn_blocking(move || acks(child, usize::MAX)).await.expect("ended");
    assert_eq!(status.signal(), Some(6), "{status}");
    assert!(acks.len() > 100, "{}", acks.len());
    check(folder.path(), &acks).await;
}

/// SQLite takes a damaged frame for the end of its log; the mark beside it shows that writes are missing.
#[tokio::test]
async fn a_damaged_log_is_not_taken_for_a_short_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path()).await;
    for number in 0..100 {
        put(&*store, &format!("key/{number}"), content("x")).await;
    }
    // Nothing is written meanwhile, so this is the state after a crash.
    let image = |damage: bool| {
        let copy = tempfile::tempdir().expect("temporary folder");
        for name in ["store.db", "store.db-wal", "acknowledged"] {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).expect("copied");
        }
        if damage {
            let log = copy.path().join("store.db-wal");
            let mut bytes = std::fs::read(&log).expect("log");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&log, bytes).expect("written");
        }
        copy
    };
    let intact = image(false);
    assert_eq!(open(intact.path()).await.revision().await.expect("revision"), Revision(100));

    let damaged = image(true);
    let conn = Connection::open(damaged.path().join("store.db")).expect("SQLite opens it without a word");
    let rows: i64 = conn.query_row("SELECT count(*) FROM changes", [], |row| row.get(0)).expect("counted");
    assert!(rows < 100);
    drop(conn);
    let damaged = image(true);
    let refused = EmbeddedStore::open(damaged.path()).await.err().expect("refused").to_string();
    assert!(refused.contains("has lost acknowledged writes"), "{refused}");
    // To go on without them is a decision.
    std::fs::remove_file(damaged.path().join("acknowledged")).expect("removed");
    let store = open(damaged.path()).await;
    assert_eq!(store.revision().await.expect("revision"), Revision(rows as u64));
    assert!(value(&*store, "key/99").await.expect("read").is_none());
}
