//! `make bench-api`: our API beside Kubernetes' own server for custom resources and beside etcd alone, interleaved in one call; or, with
//! `--against`, beside another build of ours.
//!
//! Run it as root on an idle machine with two cores: `taskset -c 1 bench-api …`; the servers are put on core 0.

mod bodies;
mod etcd;
mod load;
mod measures;
mod report;
mod target;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use report::Row;
use target::{Meter, Target};

/// Changes that come together. The original closes watches whose queue of ten is full: this is what all of them still see.
const CHANGES_AT_ONCE: usize = 8;
/// Connections that watches share.
const SHARED_CONNECTIONS: usize = 5;
/// Watches on each: nearly as many as a server allows, and enough to separate their cost from the memory a server holds anyway.
const WATCHES_PER_CONNECTION: usize = 900;

/// Measures our API beside Kubernetes' own.
#[derive(Parser)]
struct Arguments {
    /// Folder with the original and etcd, as tests/reference/build prints it
    #[arg(long, required_unless_present_any = ["against", "bodies"])]
    original: Option<PathBuf>,
    /// Another build of evrocd, measured in place of the original and of etcd
    #[arg(long, conflicts_with = "original")]
    against: Option<PathBuf>,
    /// The release build of evrocd
    #[arg(long)]
    evrocd: PathBuf,
    /// The project's folder
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// Objects for lists, selectors and memory
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Watchers, each on a connection of its own
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Events that each watcher gets
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// How long each loop runs
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each loop runs; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure what hostile bodies cost instead: those whose decoder or shape contains this text
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    bodies: Option<String>,
    /// Only this part: `requests`, `watches` or `objects`
    #[arg(long)]
    only: Option<String>,
    /// Writes the table and its chart here
    #[arg(long)]
    write: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let kinds = arguments.project.join("tests/api/kinds");
    let ours = Target::ours("evroc", &arguments.evrocd, &kinds).await?;
    if let Some(only) = &arguments.bodies {
        let measured = bodies::measure(&ours, Some(only.as_str()).filter(|only| !only.is_empty())).await;
        ours.end().await?;
        let (table, is_good) = measured?;
        print!("{table}");
        ensure!(is_good, "a body costs more than in proportion to its size: the bold rows");
        return Ok(());
    }
    let measured = match baseline(&arguments, &kinds).await {
        Ok(baseline) => {
            let measured = measure(&ours, &baseline, &arguments).await;
            baseline.end().await?;
            measured
        }
        Err(error) => Err(error),
    };
    ours.end().await?;
    let mut rows = measured?;
    if arguments.against.is_some() {
        rows = rows.into_iter().map(Row::beside_another_build).collect();
    }
    let text = report::table(&rows);
    print!("{text}");
    if let Some(file) = &arguments.write {
        report::write(file, &rows, &text, arguments.objects)?;
    }
    Ok(())
}

/// Starts what ours is compared with.
async fn baseline(arguments: &Arguments, kinds: &Path) -> Result<Target> {
    if let Some(program) = &arguments.against {
        return Target::ours("the other build", program, kinds).await;
    }
    let folder = arguments.original.as_deref().context("--original is missing")?;
    let original = Target::original(&arguments.project.join("tests/reference/start"), folder).await?;
    match report::install(&original, kinds).await {
        Ok(()) => Ok(original),
        Err(error) => {
            original.end().await?;
            Err(error)
        }
    }
}

async fn measure(ours: &Target, original: &Target, arguments: &Arguments) -> Result<Vec<Row>> {
    let wanted = |part: &str| arguments.only.as_ref().is_none_or(|only| only == part);
    // The roles have just started: their memory before the first request.
    let idle = (ours.memory()?, original.memory()?);
    let mut rows = vec![Row::lower("memory, idle", "MiB", mebibytes(idle.0), mebibytes(idle.1))];
    if wanted("watches") {
        // The original's runtime allocates memory ahead: its growth does not show the cost of one connection.
        let memory =
            measures::watch_memory(ours, arguments.watchers, (SHARED_CONNECTIONS, WATCHES_PER_CONNECTION)).await?;
        rows.push(Row::alone("memory of a watcher's connection", "KiB", memory.alone / 1024.0));
        rows.push(Row::alone("memory of a further watch on one connection", "KiB", memory.shared / 1024.0));
    }
    if wanted("requests") {
        rows.extend(requests([ours, original], arguments).await?);
    }
    if wanted("watches") {
        rows.extend(watches([ours, original], arguments).await?);
    }
    if wanted("objects") {
        rows.extend(objects([ours, original], arguments).await?);
    }
    Ok(rows)
}

/// Creates and reads by many clients.
async fn requests(both: [&Target; 2], arguments: &Arguments) -> Result<Vec<Row>> {
    let time = Duration::from_secs(arguments.seconds);
    let (mut creates, mut gets, mut etcd) = ([vec![], vec![]], [vec![], vec![]], vec![]);
    let (mut written, mut flushed) = (0, 0);
    for round in 0..arguments.rounds {
        for (index, target) in both.iter().enumerate() {
            let before = target::flushes();
            let meter = Meter::start(target)?;
            let outcome = measures::creates(target, &format!("r{round}"), time).await?;
            eprintln!("round {}: {}: {:.0} creates/s, {}", round + 1, target.name, outcome.per_second, meter.busy()?);
            if index == 0 {
                written += outcome.count;
                flushed += target::flushes() - before;
            }
            creates[index].push(outcome);
            let meter = Meter::start(target)?;
            let outcome = measures::gets(target, time).await?;
            eprintln!("round {}: {}: {:.0} reads/s, {}", round + 1, target.name, outcome.per_second, meter.busy()?);
            gets[index].push(outcome);
        }
        if let Some(folder) = &arguments.original {
            etcd.push(etcd::measure(folder, measures::CLIENTS, 1024, time).await?);
        }
    }
    let (create, create_original) = (measures::middle(&creates[0]), measures::middle(&creates[1]));
    let (get, get_original) = (measures::middle(&gets[0]), measures::middle(&gets[1]));
    let mut rows = vec![
        Row::higher("creates of 1 KB, 64 clients", "/s", create.0, create_original.0).bar(5.0),
        Row::lower("creates, p99", "ms", create.1, create_original.1).bar(3.0),
    ];
    if !etcd.is_empty() {
        let puts = measures::middle(&etcd).0;
        rows.push(Row::higher("creates, beside raw etcd puts", "/s", create.0, puts).beside("etcd 3.5").bar(1.0));
    }
    rows.extend([
        Row::higher("reads of the newest state, 64 clients", "/s", get.0, get_original.0).bar(6.0),
        Row::lower("reads, p99", "ms", get.1, get_original.1),
        Row::alone("acknowledged writes for each flush of a disk", "", written as f64 / flushed.max(1) as f64),
    ]);
    Ok(rows)
}

/// Changes that many connections see, one at a time and several at once.
async fn watches(both: [&Target; 2], arguments: &Arguments) -> Result<Vec<Row>> {
    let (watchers, mut rows) = (arguments.watchers, vec![]);
    for changes in [1, CHANGES_AT_ONCE] {
        let mut rates = [vec![], vec![]];
        for round in 0..arguments.rounds {
            for (index, target) in both.iter().enumerate() {
                let bursts = arguments.events.div_ceil(changes);
                let watched = measures::watches(target, watchers, bursts, changes).await?;
                eprintln!("round {}: {}: {:.0} events/s, {}", round + 1, target.name, watched.per_second, watched.busy);
                rates[index].push(watched.per_second);
            }
        }
        let [ours, original] = rates.map(load::median);
        let name = match changes {
            1 => format!("events to {watchers} watchers, one at a time"),
            _ => format!("events to {watchers} watchers, {changes} at once"),
        };
        rows.push(Row::higher(&name, "/s", ours, original).bar(4.0));
    }
    Ok(rows)
}

/// Lists, selectors and memory with many objects, and the time to come back with them.
async fn objects(both: [&Target; 2], arguments: &Arguments) -> Result<Vec<Row>> {
    let time = Duration::from_secs(arguments.seconds);
    let (mut lists, mut selected) = (vec![], vec![]);
    for target in both {
        eprintln!("{} objects: {}", arguments.objects, target.name);
        measures::fill(target, arguments.objects).await?;
        lists.push(measures::list(target).await?);
        selected.push(measures::selectors(target, "s", time).await?);
    }
    let objects = arguments.objects;
    let kilo = |value: f64| value / f64::from(1 << 20);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let (label, field) = ((selected[0].0, selected[1].0), (selected[0].1, selected[1].1));
    let held = (both[0].memory()?, both[1].memory()?);
    let back = measures::restart(both[0]).await?;
    Ok(vec![
        Row::higher(&format!("list of {objects} objects"), "MiB/s", kilo(lists[0].0), kilo(lists[1].0)).bar(3.0),
        Row::lower("memory that the list took", "MiB", mebibytes(lists[0].1), mebibytes(lists[1].1)),
        Row::lower("1 % by label during 500 writes/s, p99", "ms", milliseconds(label.0), milliseconds(label.1)),
        Row::lower("1 % by field during 500 writes/s, p99", "ms", milliseconds(field.0), milliseconds(field.1)),
        Row::lower(&format!("memory with {objects} objects"), "MiB", mebibytes(held.0), mebibytes(held.1)).bar(4.0),
        Row::alone("first list after kill -9", "s", back.as_secs_f64()),
    ])
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
