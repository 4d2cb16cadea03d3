//! Many sequences against both servers, several at a time; the state is kept, so that a run that was ended goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::explained::explained;
use super::generate::sequence;
use super::play::play;
use super::shrink::shrink;
use super::{Recording, Seen, Sequence, difference, explain};
use crate::client::Client;
use crate::server::make_namespace;

/// Sequences in flight: enough to keep two cores busy while others wait; the original takes three seconds to refuse a revision that
/// is still to come.
const WORKERS: usize = 24;

/// A sequence that is not small by then stays as it is: the next sequences wait meanwhile.
const SHRINKING: Duration = Duration::from_secs(30);

/// Both servers.
#[derive(Clone)]
pub struct Pair {
    /// Ours.
    pub ours: Client,
    /// Kubernetes' own.
    pub original: Client,
    /// Whether ours has namespaces that must be made first.
    pub needs_namespaces: bool,
    next: Arc<AtomicU64>,
    prefix: String,
}

impl Pair {
    /// Both servers, with namespaces of a run of their own.
    pub fn new(ours: Client, original: Client, needs_namespaces: bool) -> Self {
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("d{:x}", started.as_secs());
        Pair { ours, original, needs_namespaces, next: Arc::default(), prefix }
    }

    /// Returns the answers of both, in an unused namespace.
    ///
    /// # Errors
    /// If a server cannot be reached.
    pub async fn play(&self, sequence: &Sequence) -> Result<(Vec<Seen>, Vec<Seen>)> {
        let namespace = format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed));
        if self.needs_namespaces {
            make_namespace(&self.ours, &namespace).await?;
        }
        let (ours, original) =
            tokio::join!(play(&self.ours, sequence, &namespace), play(&self.original, sequence, &namespace));
        Ok((ours.context("ours")?, original.context("the original")?))
    }

    /// Whether they differ, and again in a second run: an age that crosses a second is no difference.
    async fn differ(&self, sequence: &Sequence) -> Result<Option<(usize, Vec<Seen>, Vec<Seen>)>> {
        for attempt in 0..2 {
            let (ours, original) = self.play(sequence).await?;
            match difference(&ours, &original) {
                None => return Ok(None),
                Some(step) if attempt == 1 => return Ok(Some((step, ours, original))),
                Some(_) => {}
            }
        }
        Ok(None)
    }
}

/// How far a run is; kept in `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The sequences: number `n` is made from `seed + n`.
    pub seed: u64,
    /// The first that was not compared yet.
    pub next: u64,
    /// How many requests were compared.
    pub requests: u64,
    /// Compared answers by method and status code of the original.
    pub answers: BTreeMap<String, u64>,
    /// Sequences that differ as docs/conformance.md says, by the reason there.
    #[serde(default)]
    pub explained: BTreeMap<String, Vec<u64>>,
    /// Sequences that differ, by the first difference that they show.
    pub differences: BTreeMap<String, Vec<u64>>,
}

/// Compares sequences `state.next..count`, with the state and a file for each kind of difference in `dir`.
///
/// # Errors
/// If a server cannot be reached or the folder cannot be written.
pub async fn run(pair: &Pair, mut state: State, count: u64, dir: &Path, deadline: Option<Instant>) -> Result<State> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let started = Instant::now();
    let mut reported = Instant::now();
    let from = state.next;
    // Differences of an earlier run are checked again: they may have been fixed.
    let again: Vec<u64> = std::mem::take(&mut state.differences).into_values().flatten().collect();
    for (number, outcome) in compare(pair, state.seed, again).await? {
        state.settle(pair, number, &outcome, dir).await?;
    }
    while state.next < count && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let end = (state.next + 256).min(count);
        for (number, outcome) in compare(pair, state.seed, (state.next..end).collect()).await? {
            state.requests += outcome.codes.len() as u64;
            for code in &outcome.codes {
                *state.answers.entry(code.clone()).or_default() += 1;
            }
            state.settle(pair, number, &outcome, dir).await?;
        }
        state.next = end;
        save(dir, &state)?;
        if reported.elapsed() > Duration::from_secs(20) {
            reported = Instant::now();
            let rate = (state.next - from) as f64 / started.elapsed().as_secs_f64();
            println!("{} of {count} sequences, {rate:.0}/s, {} differences", state.next, state.differences.len());
        }
    }
    Ok(state)
}

impl State {
    /// Records the result of a sequence; the first of a kind is shrunk and written down.
    async fn settle(&mut self, pair: &Pair, number: u64, outcome: &Outcome, dir: &Path) -> Result<()> {
        if let Some(reason) = outcome.explained {
            self.explained.entry(reason.to_owned()).or_default().push(number);
        }
        let Some(found) = &outcome.difference else { return Ok(()) };
        let known = self.differences.entry(found.title.clone()).or_default();
        known.push(number);
        if known.len() == 1 {
            let file = dir.join(format!("difference-{}.json", self.seed + number));
            report(pair, sequence(self.seed + number), &file, found).await?;
            println!("sequence {number}, step {}: {} ({})", found.step, found.title, file.display());
        }
        Ok(())
    }
}

struct Outcome {
    codes: Vec<String>,
    explained: Option<&'static str>,
    difference: Option<Found>,
}

/// A difference as it was seen.
struct Found {
    title: String,
    step: usize,
    ours: Vec<Seen>,
    original: Vec<Seen>,
}

async fn compare(pair: &Pair, seed: u64, numbers: Vec<u64>) -> Result<BTreeMap<u64, Outcome>> {
    let queue = Arc::new(Mutex::new(numbers.into_iter()));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let (pair, queue) = (pair.clone(), queue.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let Some(number) = queue.lock().await.next() else { return anyhow::Ok(done) };
                let sequence = sequence(seed + number);
                let (ours, original) =
                    pair.play(&sequence).await.with_context(|| format!("sequence {number} of seed {seed}"))?;
                let codes = sequence.steps.iter().zip(&original);
                let codes = codes.map(|(step, seen)| format!("{} {}", step.method, seen.code)).collect();
                let (mut found, mut reason) = (None, None);
                if difference(&ours, &original).is_some()
                    && let Some((step, ours, original)) = pair.differ(&sequence).await?
                {
                    reason = explained(&sequence, step, &ours, &original);
                    if reason.is_none() {
                        let title = title(&sequence, step, &ours, &original);
                        found = Some(Found { title, step, ours, original });
                    }
                }
                done.push((number, Outcome { codes, explained: reason, difference: found }));
            }
        });
    }
    let mut all = BTreeMap::new();
    while let Some(done) = workers.join_next().await {
        all.extend(done.context("a worker ended")??);
    }
    Ok(all)
}

/// A difference in one line, without the particulars of the sequence, so that equal ones meet.
fn title(sequence: &Sequence, step: usize, ours: &[Seen], original: &[Seen]) -> String {
    let method = sequence.steps.get(step).map_or("-", |it| it.method.as_str());
    let media = sequence.steps.get(step).map_or("", |it| it.media_type.as_str());
    let (Some(one), Some(other)) = (ours.get(step), original.get(step)) else { return "number of answers".into() };
    let what: String = if one.code != other.code {
        let messages: Vec<&str> = [one, other].iter().filter_map(|it| it.body["message"].as_str()).collect();
        messages.join(" | ").chars().take(200).collect()
    } else {
        let first = explain(&whole(one), &whole(other)).into_iter().next().unwrap_or_default();
        first.chars().take(140).collect()
    };
    let what: String = what.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
    format!("{method} {media} {}|{} {what}", one.code, other.code)
}

pub(super) fn whole(seen: &Seen) -> Value {
    json!({"code": seen.code, "warnings": seen.warnings, "type": seen.media_type, "body": seen.body})
}

/// Shrinks a sequence that differs and writes it down with both answers; one that does not differ again as it was found.
async fn report(pair: &Pair, sequence: Sequence, file: &Path, found: &Found) -> Result<()> {
    // The rest must differ in the same way: a shorter sequence often shows some other difference.
    let deadline = Instant::now() + SHRINKING;
    let differs_so = |candidate: Sequence| async move {
        if Instant::now() > deadline {
            return Ok(false);
        }
        let again = pair.differ(&candidate).await?;
        Ok(again.is_some_and(|(step, ours, original)| title(&candidate, step, &ours, &original) == found.title))
    };
    let small = shrink(sequence.clone(), differs_so).await?;
    let (sequence, step, ours, original) = match pair.differ(&small).await? {
        Some((step, ours, original)) => (small, step, ours, original),
        None => (sequence, found.step, found.ours.clone(), found.original.clone()),
    };
    let document = json!({
        "title": found.title,
        "differs": explain(&whole(&ours[step]), &whole(&original[step])),
        "step": step,
        "steps": sequence.steps,
        "ours": ours,
        "original": original,
    });
    write(file, &document)
}

fn save(dir: &Path, state: &State) -> Result<()> {
    let file = dir.join("state.json");
    let partial = dir.join(".state.json");
    write(&partial, &serde_json::to_value(state)?)?;
    std::fs::rename(&partial, &file).with_context(|| format!("write {}", file.display()))
}

/// Takes a run up again; none where there was none of this seed.
///
/// # Errors
/// If the file exists and cannot be read.
pub fn load(dir: &Path, seed: u64) -> Result<Option<State>> {
    let file = dir.join("state.json");
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let state: State = serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
    Ok(Some(state).filter(|it| it.seed == seed))
}

/// Every recording in a folder's files, with the file's name.
///
/// # Errors
/// If a file cannot be read.
pub fn recordings(dir: &Path) -> Result<Vec<(PathBuf, Vec<Recording>)>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|it| it == "json"));
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let all = serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
        Ok((file, all))
    };
    files.into_iter().map(read).collect()
}

/// Writes a document in the form that people read.
///
/// # Errors
/// If the file cannot be written.
pub fn write(file: &Path, document: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
}
