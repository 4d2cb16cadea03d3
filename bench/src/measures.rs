//! The measurements on one server; the same on each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::load::{self, Connection, Outcome, closed_loop, percentile};
use crate::target::{Meter, Target, resident};

/// Clients that write or read at once.
pub const CLIENTS: usize = 64;
/// One in this many objects has the label and the field of the selectors.
const ONE_OF: usize = 100;
/// Writes a second while selectors are measured.
const WRITES_PER_SECOND: u32 = 500;

/// The collection of the objects.
fn path(target: &Target) -> String {
    format!("/apis/test.example/v1/namespaces/{}/widgets", target.namespace)
}

/// An object of 1 KB.
pub fn object(name: &str, number: usize) -> Bytes {
    let is_picked = number.is_multiple_of(ONE_OF);
    let object = json!({
        "apiVersion": "test.example/v1", "kind": "Widget",
        "metadata": {"name": name, "labels": {"pick": if is_picked { "yes" } else { "no" }}},
        "spec": {"mode": if is_picked { "manual" } else { "auto" }, "size": number % 10, "free": {"pad": "x".repeat(780)}},
    });
    object.to_string().into()
}

/// Creates, for some time.
pub async fn creates(target: &Target, round: &str, time: Duration) -> Result<Outcome> {
    let (path, round) = (path(target), round.to_owned());
    closed_loop(&target.endpoint, CLIENTS, time, move |worker, number| {
        (Method::POST, path.clone(), object(&format!("{round}-{worker}-{number}"), number))
    })
    .await
}

/// Reads of the newest state of one object each, for some time.
pub async fn gets(target: &Target, time: Duration) -> Result<Outcome> {
    let connection = target.endpoint.connect()?;
    let path = path(target);
    for worker in 0..CLIENTS {
        // A later round finds it there.
        connection.send(Method::POST, &path, object(&format!("read-{worker}"), 1)).await?.into_body().collect().await?;
    }
    closed_loop(&target.endpoint, CLIENTS, time, move |worker, _| {
        (Method::GET, format!("{path}/read-{worker}"), Bytes::new())
    })
    .await
}

/// Fills up to this number of objects.
pub async fn fill(target: &Target, wanted: usize) -> Result<()> {
    let (path, is_done) = (path(target), Arc::new(AtomicUsize::new(count(target).await?)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..CLIENTS {
        let (connection, path, is_done) = (target.endpoint.connect()?, path.clone(), is_done.clone());
        tasks.spawn(async move {
            loop {
                let number = is_done.fetch_add(1, Ordering::Relaxed);
                if number >= wanted {
                    return anyhow::Ok(());
                }
                connection.ask(Method::POST, &path, object(&format!("fill-{worker}-{number}"), number)).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn count(target: &Target) -> Result<usize> {
    let body = target.endpoint.connect()?.ask(Method::GET, &format!("{}?limit=1", path(target)), Bytes::new()).await?;
    let list: Value = serde_json::from_slice(&body)?;
    let rest = list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
    let here = list["items"].as_array().map_or(0, Vec::len);
    Ok(here + usize::try_from(rest)?)
}

/// The result of a run with watchers.
pub struct Watched {
    /// Events that reached any of them, per second.
    pub per_second: f64,
    /// How busy each core was.
    pub busy: String,
}

/// `bursts` times so many changes at once, seen by `watchers`, each on a connection of its own; the next burst begins when all have
/// seen the one before: no server has to drop a watcher that cannot follow.
pub async fn watches(target: &Target, watchers: usize, bursts: usize, changes: usize) -> Result<Watched> {
    let path = path(target);
    let writers: Vec<Connection> = (0..changes).map(|_| target.endpoint.connect()).collect::<Result<_>>()?;
    let since = newest(target).await?;
    let (seen, mut tasks) = (Arc::new(Seen::default()), tokio::task::JoinSet::<Result<()>>::new());
    for _ in 0..watchers {
        let connection = target.endpoint.connect()?;
        let watch = format!("{path}?watch=1&resourceVersion={since}&labelSelector=watched");
        let answer = connection.send(Method::GET, &watch, Bytes::new()).await?;
        ensure!(answer.status().is_success(), "a watch was refused: {}", answer.status());
        let seen = seen.clone();
        tasks.spawn(async move {
            let _connection = connection;
            let mut body = answer.into_body();
            // Ends with an error, or when the measurement does.
            loop {
                let frame = body.frame().await.context("a watch ended early")??;
                let lines = frame.data_ref().map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
                let count = seen.count.fetch_add(lines, Ordering::Relaxed) + lines;
                if count >= seen.wanted.load(Ordering::Relaxed) {
                    seen.all.notify_one();
                }
            }
        });
    }
    let run = uuid::Uuid::new_v4().simple().to_string();
    let meter = Meter::start(target)?;
    let started = Instant::now();
    for burst in 0..bursts {
        seen.wanted.store((burst + 1) * changes * watchers, Ordering::Relaxed);
        let writes = writers.iter().enumerate().map(|(number, connection)| {
            let mut widget: Value =
                serde_json::from_slice(&object(&format!("watched-{run}-{burst}-{number}"), 1)).unwrap_or_default();
            widget["metadata"]["labels"]["watched"] = json!("yes");
            connection.ask(Method::POST, &path, widget.to_string().into())
        });
        futures::future::try_join_all(writes).await?;
        while seen.count.load(Ordering::Relaxed) < (burst + 1) * changes * watchers {
            tokio::select! {
                () = seen.all.notified() => {}
                Some(ended) = tasks.join_next() => ended??,
            }
        }
    }
    let per_second = seen.count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    Ok(Watched { per_second, busy: meter.busy()? })
}

/// Returns the memory of a watch in bytes.
pub struct WatchMemory {
    /// With a connection of its own.
    pub alone: f64,
    /// On a connection that it shares.
    pub shared: f64,
}

/// Opens so many watches on connections of their own, and then so many on each of some shared ones; each has sent an event when it
/// is looked. To be asked of a server that has just started: what others have given back would be taken for it.
pub async fn watch_memory(target: &Target, alone: usize, (connections, each): (usize, usize)) -> Result<WatchMemory> {
    let idle = target.memory()?;
    let own = (0..alone).map(|_| target.endpoint.connect()).collect::<Result<Vec<_>>>()?;
    let _alone = watched(target, &own, 1).await?;
    let with_alone = target.memory()?;
    let shared = (0..connections).map(|_| target.endpoint.connect_shared()).collect::<Result<Vec<_>>>()?;
    let streams = watched(target, &shared, each).await?;
    ensure!(streams.iter().all(|it| it.version() == Version::HTTP_2), "the connections are not shared");
    let with_all = target.memory()?;
    Ok(WatchMemory {
        alone: with_alone.saturating_sub(idle) as f64 / alone as f64,
        shared: with_all.saturating_sub(with_alone) as f64 / streams.len() as f64,
    })
}

/// Receives the events of this many watches on each connection, each of which has sent an event.
async fn watched(target: &Target, connections: &[Connection], each: usize) -> Result<Vec<Response<Incoming>>> {
    let (path, since) = (path(target), newest(target).await?);
    let label = format!("seen-{}", uuid::Uuid::new_v4());
    let watch = format!("{path}?watch=1&resourceVersion={since}&labelSelector={label}");
    let mut answers = Vec::new();
    for connection in connections.iter().flat_map(|connection| std::iter::repeat_n(connection, each)) {
        let answer = connection.send(Method::GET, &watch, Bytes::new()).await?;
        ensure!(answer.status().is_success(), "a watch was refused: {}", answer.status());
        answers.push(answer);
    }
    let mut widget: Value = serde_json::from_slice(&object(&label, 1))?;
    widget["metadata"]["labels"][&label] = json!("yes");
    target.endpoint.connect()?.ask(Method::POST, &path, widget.to_string().into()).await?;
    for answer in &mut answers {
        answer.body_mut().frame().await.context("a watch ended early")??;
    }
    Ok(answers)
}

/// The newest revision.
async fn newest(target: &Target) -> Result<String> {
    let page = target.endpoint.connect()?.ask(Method::GET, &format!("{}?limit=1", path(target)), Bytes::new()).await?;
    let page: Value = serde_json::from_slice(&page)?;
    Ok(page["metadata"]["resourceVersion"].as_str().context("the list has no resourceVersion")?.to_owned())
}

/// How many events have come, and whether they are all.
#[derive(Default)]
struct Seen {
    count: AtomicUsize,
    wanted: AtomicUsize,
    all: tokio::sync::Notify,
}

/// Bytes a second of a full list, and how far the server's memory grew meanwhile.
pub async fn list(target: &Target) -> Result<(f64, u64)> {
    let connection = target.endpoint.connect()?;
    let pids: Vec<i32> = target.processes()?.into_iter().map(|(_, pid)| pid).collect();
    let resident_now = move || pids.iter().map(|pid| resident(*pid)).sum::<u64>();
    let before = resident_now();
    let peak = Arc::new(AtomicU64::new(before));
    let sampler = {
        let peak = peak.clone();
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            loop {
                looks.tick().await;
                peak.fetch_max(resident_now(), Ordering::Relaxed);
            }
        })
    };
    let started = Instant::now();
    let mut body = connection.send(Method::GET, &path(target), Bytes::new()).await?.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    let took = started.elapsed().as_secs_f64();
    sampler.abort();
    Ok((bytes as f64 / took, peak.load(Ordering::Relaxed).saturating_sub(before)))
}

/// The 99th percentile of lists by label and by field while others write.
pub async fn selectors(target: &Target, round: &str, time: Duration) -> Result<(Duration, Duration)> {
    let (path, endpoint, round) = (path(target), target.endpoint.clone(), round.to_owned());
    let is_done = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8_u32 {
        let (connection, path, is_done, round) = (endpoint.connect()?, path.clone(), is_done.clone(), round.clone());
        writers.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_secs(8) / WRITES_PER_SECOND);
            let mut number = 0;
            while !is_done.load(Ordering::Relaxed) {
                pace.tick().await;
                let name = format!("pace-{round}-{writer}-{number}");
                connection.ask(Method::POST, &path, object(&name, 1)).await?;
                number += 1;
            }
            anyhow::Ok(())
        });
    }
    let connection = endpoint.connect()?;
    let mut found = Vec::new();
    for selector in ["labelSelector=pick%3Dyes", "fieldSelector=spec.mode%3Dmanual"] {
        let (started, mut times) = (Instant::now(), Vec::new());
        while started.elapsed() < time {
            let sent = Instant::now();
            connection.ask(Method::GET, &format!("{path}?{selector}"), Bytes::new()).await?;
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        found.push(percentile(&times, 99));
    }
    is_done.store(true, Ordering::Relaxed);
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok((found[0], found[1]))
}

/// Kills the role that serves the API, and waits for the first whole list.
pub async fn restart(target: &Target) -> Result<Duration> {
    let control = target.processes()?.into_iter().find(|(name, _)| name == "control").context("no control role")?.1;
    let killed = std::process::Command::new("kill").args(["-9", &control.to_string()]).status()?;
    ensure!(killed.success(), "control cannot be killed");
    let started = Instant::now();
    let connection = target.endpoint.connect()?;
    loop {
        if connection.ask(Method::GET, &format!("{}?limit=500", path(target)), Bytes::new()).await.is_ok() {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "no list within a minute of the kill");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The median of outcomes: rate, and 99th percentile in milliseconds.
pub fn middle(outcomes: &[Outcome]) -> (f64, f64) {
    let rate = load::median(outcomes.iter().map(|outcome| outcome.per_second).collect());
    let p99 = load::median(outcomes.iter().map(|outcome| outcome.p99.as_secs_f64() * 1000.0).collect());
    (rate, p99)
}
