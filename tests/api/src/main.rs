//! `differential`: sends random sequences of requests to ours and to the original, and reports different answers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use evroc_api_suite::differential::explained::explained;
use evroc_api_suite::differential::run::{Pair, State, load, recordings, run, write};
use evroc_api_suite::differential::{Recording, Sequence, difference, explain, generate, play};
use evroc_api_suite::server::{Server, definitions, install_kinds};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Compares our API server with Kubernetes' own")]
struct Arguments {
    /// The folder that `tests/reference/build` prints.
    #[arg(long, value_name = "FOLDER")]
    original: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare random sequences; what differs is shrunk and written to the folder
    Run {
        /// How many
        #[arg(long, default_value_t = 20_000)]
        sequences: u64,
        /// Number n is made from seed + n
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The folder of state and differences; a run that was ended goes on from its state
        #[arg(long, value_name = "FOLDER", default_value = "target/differential")]
        dir: PathBuf,
        /// Begin again although the folder has a state
        #[arg(long)]
        anew: bool,
        /// Stop after this many seconds, and go on another time
        #[arg(long, value_name = "SECONDS")]
        time: Option<u64>,
    },
    /// Send the steps of a file that `run` wrote to both, or the sequence of a seed, and print what differs
    Replay {
        /// The file, or the seed
        file: PathBuf,
        /// Print every step and both answers
        #[arg(long)]
        steps: bool,
    },
    /// Record the original's answers to every recording in a folder
    Record {
        /// The folder of recordings
        #[arg(default_value = "tests/api/sequences")]
        dir: PathBuf,
    },
    /// Offer CustomResourceDefinitions to the original and print its refusals
    Definitions {
        /// A folder of YAML files
        dir: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let original = Server::original(&arguments.original, true).await?;
    let fine = match arguments.command {
        Command::Record { dir } => record(&original, &dir).await?,
        Command::Definitions { dir } => accepts(&original, &dir).await?,
        Command::Replay { file, steps } => {
            let ours = Server::ours(&["--bare"], true).await?;
            let fine = replay(&Pair::new(ours.client().await?, original.client().await?, false), &file, steps).await?;
            ours.stop().await?;
            fine
        }
        Command::Run { sequences, seed, dir, anew, time } => {
            let ours = Server::ours(&["--bare"], true).await?;
            let pair = Pair::new(ours.client().await?, original.client().await?, false);
            let known = if anew { None } else { load(&dir, seed)? };
            let state = known.unwrap_or(State { seed, ..State::default() });
            let deadline = time.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            let state = run(&pair, state, sequences, &dir, deadline).await?;
            print_state(&state);
            ours.stop().await?;
            state.differences.is_empty()
        }
    };
    original.stop().await?;
    std::process::exit(if fine { 0 } else { 1 });
}

fn print_state(state: &State) {
    println!("{} sequences from seed {}, {} requests", state.next, state.seed, state.requests);
    for (answer, count) in &state.answers {
        println!("{count:>9} {answer}");
    }
    for (reason, numbers) in &state.explained {
        let (count, first) = (numbers.len(), state.seed + numbers[0]);
        println!("{count:>9} differ as described in docs/conformance.md: {reason} (first: {first})");
    }
    let differing: usize = state.differences.values().map(Vec::len).sum();
    println!("{differing} sequences differ, in {} ways", state.differences.len());
    let mut ways: Vec<_> = state.differences.iter().collect();
    ways.sort_by_key(|way| std::cmp::Reverse(way.1.len()));
    for (title, numbers) in ways {
        println!("{:>6} {title} (first: {})", numbers.len(), state.seed + numbers[0]);
    }
}

async fn replay(pair: &Pair, file: &Path, with_steps: bool) -> Result<bool> {
    let seed = file.to_str().and_then(|it| it.parse().ok());
    let sequence = match seed {
        Some(seed) => generate::sequence(seed),
        None => {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            let document: Value = serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
            Sequence { steps: serde_json::from_value(document["steps"].clone())? }
        }
    };
    let (ours, original) = pair.play(&sequence).await?;
    for (step, (ours, original)) in sequence.steps.iter().zip(ours.iter().zip(&original)).filter(|_| with_steps) {
        println!("{}", serde_json::to_string(step)?);
        println!("  ours:     {}", serde_json::to_string(ours)?);
        println!("  original: {}", serde_json::to_string(original)?);
    }
    let Some(step) = difference(&ours, &original) else {
        println!("{}: no difference", file.display());
        return Ok(true);
    };
    println!("{}: step {step}: {}", file.display(), serde_json::to_string(&sequence.steps[step])?);
    for line in explain(&serde_json::to_value(&ours[step])?, &serde_json::to_value(&original[step])?) {
        println!("  {line}");
    }
    if let Some(reason) = explained(&sequence, step, &ours, &original) {
        println!("  as described in docs/conformance.md: {reason}");
        return Ok(true);
    }
    Ok(false)
}

async fn record(original: &Server, dir: &Path) -> Result<bool> {
    let client = original.client().await?;
    for (file, mut all) in recordings(dir)? {
        for (number, recording) in all.iter_mut().enumerate() {
            let sequence = Sequence { steps: recording.steps.clone() };
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            recording.answers = play::play(&client, &sequence, &format!("{stem}-{number}")).await?;
        }
        let all: Vec<Recording> = all;
        write(&file, &json!(all))?;
        println!("{}: {} recordings", file.display(), all.len());
    }
    Ok(true)
}

async fn accepts(original: &Server, dir: &Path) -> Result<bool> {
    let client = original.client().await?;
    let all = definitions(dir)?;
    let mut refused = 0;
    for definition in &all {
        if let Err(error) = install_kinds(&client, std::slice::from_ref(definition)).await {
            println!("{error:#}");
            refused += 1;
        }
    }
    println!("{} of {} definitions are accepted", all.len() - refused, all.len());
    Ok(refused == 0)
}
