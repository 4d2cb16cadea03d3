//! `make bench-api`: our API beside Kubernetes' own server for custom resources and beside etcd alone, interleaved in one call.
//!
//! Run it as root on an idle machine with two cores: `taskset -c 1 bench-api …`; the servers are put on core 0.

mod etcd;
mod load;
mod measures;
mod report;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use report::Row;
use target::Target;

/// Measures our API beside Kubernetes' own.
#[derive(Parser)]
struct Arguments {
    /// Folder with the original and etcd, as tests/reference/build prints it
    #[arg(long)]
    original: PathBuf,
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
    /// Writes the table and its chart here
    #[arg(long)]
    write: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let kinds = arguments.project.join("tests/api/kinds");
    let ours = Target::ours(&arguments.evrocd, &kinds).await?;
    let start = arguments.project.join("tests/reference/start");
    let measured = match original(&start, &arguments, &kinds).await {
        Ok(original) => {
            let measured = measure(&ours, &original, &arguments).await;
            original.end().await?;
            measured
        }
        Err(error) => Err(error),
    };
    ours.end().await?;
    let rows = measured?;
    let text = report::table(&rows);
    print!("{text}");
    if let Some(file) = &arguments.write {
        report::write(file, &rows, &text, arguments.objects)?;
    }
    Ok(())
}

async fn original(start: &std::path::Path, arguments: &Arguments, kinds: &std::path::Path) -> Result<Target> {
    let original = Target::original(start, &arguments.original).await?;
    match report::install(&original, kinds).await {
        Ok(()) => Ok(original),
        Err(error) => {
            original.end().await?;
            Err(error)
        }
    }
}

async fn measure(ours: &Target, original: &Target, arguments: &Arguments) -> Result<Vec<Row>> {
    let time = Duration::from_secs(arguments.seconds);
    let both = [ours, original];
    let mut rows = Vec::new();

    // The roles have just started: what they hold when nothing is asked of them.
    rows.push(Row::lower(
        "memory, idle",
        "MiB",
        mebibytes(ours.memory(|_| true)?),
        mebibytes(original.memory(|_| true)?),
    ));

    let (mut creates, mut gets, mut etcd) = ([vec![], vec![]], [vec![], vec![]], vec![]);
    let (mut written, mut flushed) = (0, 0);
    for round in 0..arguments.rounds {
        for (index, target) in both.iter().enumerate() {
            eprintln!("round {}: {}", round + 1, target.name);
            let before = target::flushes();
            let outcome = measures::creates(target, &format!("r{round}"), time).await?;
            if index == 0 {
                written += outcome.count;
                flushed += target::flushes() - before;
            }
            creates[index].push(outcome);
            gets[index].push(measures::gets(target, time).await?);
        }
        etcd.push(etcd::measure(&arguments.original, measures::CLIENTS, 1024, time).await?);
    }
    let (create, create_original) = (measures::middle(&creates[0]), measures::middle(&creates[1]));
    let (get, get_original) = (measures::middle(&gets[0]), measures::middle(&gets[1]));
    let puts = measures::middle(&etcd);
    rows.push(Row::higher("creates of 1 KB, 64 clients", "/s", create.0, create_original.0).bar(5.0));
    rows.push(Row::lower("creates, p99", "ms", create.1, create_original.1).bar(3.0));
    rows.push(Row::higher("creates, beside raw etcd puts", "/s", create.0, puts.0).beside("etcd 3.5").bar(1.0));
    rows.push(Row::higher("reads of the newest state, 64 clients", "/s", get.0, get_original.0).bar(6.0));
    rows.push(Row::lower("reads, p99", "ms", get.1, get_original.1));
    rows.push(Row::alone("acknowledged writes for each flush of a disk", "", written as f64 / flushed.max(1) as f64));

    let mut watch = vec![];
    for target in both {
        eprintln!("watches: {}", target.name);
        watch.push(measures::watches(target, arguments.watchers, arguments.events).await?);
    }
    let name = format!("events to {} watchers", arguments.watchers);
    rows.push(Row::higher(&name, "/s", watch[0].0, watch[1].0).bar(4.0));
    // The original's runtime takes memory ahead: its growth says nothing of one connection.
    rows.push(Row::alone("memory of a watcher's connection", "KiB", watch[0].1 / 1024.0));

    let (mut lists, mut selected) = (vec![], vec![]);
    for target in both {
        eprintln!("{} objects: {}", arguments.objects, target.name);
        measures::fill(target, arguments.objects).await?;
        lists.push(measures::list(target).await?);
        selected.push(measures::selectors(target, "s", time).await?);
    }
    let objects = arguments.objects;
    let kilo = |value: f64| value / f64::from(1 << 20);
    rows.push(Row::higher(&format!("list of {objects} objects"), "MiB/s", kilo(lists[0].0), kilo(lists[1].0)).bar(3.0));
    rows.push(Row::lower("memory that the list took", "MiB", mebibytes(lists[0].1), mebibytes(lists[1].1)));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let (label, field) = ((selected[0].0, selected[1].0), (selected[0].1, selected[1].1));
    rows.push(Row::lower("1 % by label during 500 writes/s, p99", "ms", milliseconds(label.0), milliseconds(label.1)));
    rows.push(Row::lower("1 % by field during 500 writes/s, p99", "ms", milliseconds(field.0), milliseconds(field.1)));
    let held = (ours.memory(|_| true)?, original.memory(|_| true)?);
    rows.push(
        Row::lower(&format!("memory with {objects} objects"), "MiB", mebibytes(held.0), mebibytes(held.1)).bar(4.0),
    );
    let back = measures::restart(ours).await?;
    rows.push(Row::alone("first list after kill -9", "s", back.as_secs_f64()));
    Ok(rows)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
