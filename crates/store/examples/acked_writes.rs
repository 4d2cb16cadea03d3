//! How many durable writes per second: 64 writers on the embedded store, and a bare file with `fdatasync` for comparison.
//!
//! `cargo run --release -p evroc-store --example acked_writes -- [folder] [seconds]`; the folder must be on the disk to
//! be measured and is left empty.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evroc_store::{EmbeddedStore, Operation, Store, Txn};

const WRITERS: usize = 64;
const VALUE_BYTES: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let time = Duration::from_secs(arguments.next().map_or(Ok(5), |seconds| seconds.parse())?);
    let folder = tempfile::Builder::new().prefix("evroc-bench-").tempdir_in(folder)?;
    println!("{WRITERS} writers, values of {VALUE_BYTES} bytes, {time:?} each, two rounds");
    for round in 1..=2 {
        let alone = raw(folder.path(), time, 1)?;
        let grouped = raw(folder.path(), time, WRITERS)?;
        let path = folder.path().join(format!("store-{round}"));
        let (acknowledged, commits, mut latencies) = store(&path, time).await?;
        latencies.sort_unstable();
        let percentile = |p: usize| latencies[(latencies.len() - 1) * p / 100];
        let per_second = |count: u64| count as f64 / time.as_secs_f64();
        println!("round {round}");
        println!("  fdatasync after each record:       {:>8.0} writes/s", per_second(alone));
        println!("  fdatasync after {WRITERS} records:        {:>8.0} writes/s", per_second(grouped));
        println!(
            "  store:                             {:>8.0} writes/s, {:.0} commits/s ({:.1} writes per sync), p50 {:?}, p99 {:?}",
            per_second(acknowledged),
            per_second(commits),
            acknowledged as f64 / commits as f64,
            percentile(50),
            percentile(99),
        );
        println!("  store / fdatasync after {WRITERS} records: {:.2}", acknowledged as f64 / grouped as f64);
    }
    Ok(())
}

/// Appends records to a file and syncs after each `group` of them; returns how many there were.
fn raw(folder: &Path, time: Duration, group: usize) -> std::io::Result<u64> {
    let path = folder.join("raw");
    let mut file = File::create(&path)?;
    let records = vec![7; VALUE_BYTES * group];
    let begin = Instant::now();
    let mut written = 0;
    while begin.elapsed() < time {
        file.write_all(&records)?;
        file.sync_data()?;
        written += group as u64;
    }
    std::fs::remove_file(path)?;
    Ok(written)
}

async fn store(folder: &Path, time: Duration) -> Result<(u64, u64, Vec<Duration>), Box<dyn std::error::Error>> {
    let store = Arc::new(EmbeddedStore::open(folder).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("/bench/objects/{writer:02}/{number:08}");
                    let txn = Txn::new().then(Operation::put(key, vec![7; VALUE_BYTES]));
                    let begin = Instant::now();
                    store.txn(txn).await?;
                    latencies.push(begin.elapsed());
                }
                Ok::<_, evroc_store::StoreError>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    let commits = store.stats().commits;
    store.close().await;
    Ok((latencies.len() as u64, commits, latencies))
}
