//! The cost of a hostile body: the processor time that the server takes for the worst requests, by size.
//!
//! Every decoder that a client reaches is sent what is worst for it, at a size, twice and four times that size. Work that grows in proportion costs
//! four times as much at the end, work with a loop in a loop sixteen times. What counts is the processor time of the process that serves the
//! API, so other load on the machine does not, and a refusal is as good as an answer.

mod anonymous;
mod cases;
mod text;

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;

use crate::load::{Connection, Sent};
use crate::target::{self, Target};

/// How much longer the longest request is than the shortest.
const FACTOR: usize = 4;
/// Between growth in proportion (4) and quadratic growth (16).
const MOST: f64 = 6.0;
/// Measurements of a case before it has failed: a cold cache or the cloud's own work may spoil one.
const ATTEMPTS: usize = 4;
/// Processor seconds of a measurement: the kernel counts in steps of ten milliseconds.
const MEASURABLE: f64 = 0.25;
/// Requests of a measurement, however little they cost.
const MOST_REQUESTS: usize = 2_000;

/// A request that can be made at any size.
struct Case {
    /// The part of the server that reads it.
    decoder: &'static str,
    /// The property that makes it expensive.
    shape: &'static str,
    /// The smallest size, in whatever the shape has many of.
    size: usize,
    request: Box<dyn Fn(usize) -> Sent>,
    /// The request that makes the object that has to exist first, for a size.
    before: Option<Box<dyn Fn(usize) -> Sent>>,
}

/// The cost of one case.
struct Cost {
    status: u16,
    /// Bytes of the longest request.
    bytes: usize,
    /// Processor milliseconds of a request at the size, twice and four times that.
    milliseconds: [f64; 3],
}

impl Cost {
    fn ratio(&self) -> f64 {
        self.milliseconds[2] / self.milliseconds[0]
    }
}

/// Measures the cases whose decoder or shape contains `only`, and returns a table and whether all of them grow in proportion.
pub async fn measure(target: &Target, only: Option<&str>) -> Result<(String, bool)> {
    let server = Server::of(target)?;
    let (connection, all) = (target.endpoint.connect()?, cases::all(target.namespace));
    let mut table = String::from(
        "| decoder | shape | answer | longest request | ms | twice | four times | ratio |\n|---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut is_good = true;
    for case in &all {
        if only.is_some_and(|only| !case.decoder.contains(only) && !case.shape.contains(only)) {
            continue;
        }
        let cost =
            cost(&connection, &server, case).await.with_context(|| format!("{}, {}", case.decoder, case.shape))?;
        add_row(&mut table, (case.decoder, case.shape), &cost);
        is_good &= cost.ratio() <= MOST;
    }
    for (shape, size, request) in anonymous::cases() {
        if only.is_some_and(|only| !"certificate and token".contains(only) && !shape.contains(only)) {
            continue;
        }
        let cost = anonymous::cost(target, &server, size, request).await.with_context(|| shape.to_owned())?;
        add_row(&mut table, ("certificate and token", shape), &cost);
        is_good &= cost.ratio() <= MOST;
    }
    Ok((table, is_good))
}

fn add_row(table: &mut String, (decoder, shape): (&str, &str), cost: &Cost) {
    let [one, two, four] = cost.milliseconds;
    let verdict = if cost.ratio() > MOST { format!("**{:.1}**", cost.ratio()) } else { format!("{:.1}", cost.ratio()) };
    let answer = if cost.status == 0 { "no connection".to_owned() } else { cost.status.to_string() };
    let row = format!(
        "| {decoder} | {shape} | {answer} | {:.0} KB | {one:.2} | {two:.2} | {four:.2} | {verdict} |",
        cost.bytes as f64 / 1000.0
    );
    eprintln!("{row}");
    let _ = writeln!(table, "{row}");
}

/// The process that serves the API.
struct Server(i32);

impl Server {
    fn of(target: &Target) -> Result<Self> {
        let control = target.processes()?.into_iter().find(|(name, _)| name == "control");
        Ok(Self(control.context("no control role")?.1))
    }

    /// Its processor time so far in seconds.
    fn spent(&self) -> Result<f64> {
        target::seconds(&[self.0])
    }
}

async fn cost(connection: &Connection, server: &Server, case: &Case) -> Result<Cost> {
    let mut best: Option<Cost> = None;
    for _ in 0..ATTEMPTS {
        let (mut milliseconds, mut bytes, mut status) = ([0.0; 3], 0, 0);
        for (index, factor) in [1, 2, FACTOR].into_iter().enumerate() {
            let size = case.size * factor;
            if let Some(before) = &case.before {
                let (answer, text) = answer(connection, &before(size)).await?;
                ensure!(matches!(answer, 200 | 201 | 409), "what has to exist was answered with {answer}: {text}");
            }
            let request = (case.request)(size);
            bytes = request.path.len() + request.body.len();
            milliseconds[index] = average(server, async || {
                status = answer(connection, &request).await?.0;
                Ok(())
            })
            .await?;
        }
        let cost = Cost { status, bytes, milliseconds };
        if best.as_ref().is_none_or(|best| cost.ratio() < best.ratio()) {
            best = Some(cost);
        }
        if best.as_ref().is_some_and(|best| best.ratio() <= MOST) {
            break;
        }
    }
    best.context("nothing was measured")
}

/// The processor milliseconds of the server for a request, over as many as can be measured.
async fn average(server: &Server, mut request: impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    // The first one opens the connection and fills caches.
    request().await?;
    let (before, mut count) = (server.spent()?, 0);
    loop {
        request().await?;
        count += 1;
        let spent = server.spent()? - before;
        if spent >= MEASURABLE || count >= MOST_REQUESTS {
            return Ok(spent * 1000.0 / count as f64);
        }
    }
}

async fn answer(connection: &Connection, request: &Sent) -> Result<(u16, String)> {
    let answer = connection.request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    Ok((status, text))
}
