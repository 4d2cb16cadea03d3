//! Checks and generators of the repository: `cargo xtask --help`.
//!
//! Nothing here is part of the product. `tidy` holds the rules that the compiler cannot, `check` is what a change has to pass
//! before it is sent, `test` is the whole of `make test`.

mod check;
mod cleanup;
mod endurance;
mod fuzzing;
mod leftovers;
mod mutations;
mod reference;
mod repo;
mod results;
mod stages;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Checks and generators of the repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the repository's invariants (seconds; needs no build of the workspace)
    Tidy {
        /// Also list warnings, such as files over 300 lines
        #[arg(long)]
        warnings: bool,
    },
    /// Formatting, clippy with warnings as errors, tidy, and cargo-deny where it is installed
    Check,
    /// Everything that `make test` runs: stages with budgets, one count of passes and failures
    Test {
        /// Run only these stages (see --list)
        #[arg(long = "stage", value_name = "NAME")]
        stages: Vec<String>,
        /// Run only tests whose name contains this text (in the stages `unit` and `suites`)
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Run the stages this many times, also after failures, and name the rounds that failed
        #[arg(long, value_name = "N", default_value_t = 1)]
        rounds: usize,
        /// Keep this many processors busy meanwhile, to find tests that depend on time
        #[arg(long, value_name = "N", default_value_t = 0)]
        burners: usize,
        /// Print the stages and their budgets, run nothing
        #[arg(long)]
        list: bool,
    },
    /// The suite of tests/api against Kubernetes' own server for custom resources, which is built once (minutes)
    TestReference {
        /// Run only tests whose name contains this text
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Our kinds as CustomResourceDefinitions: one YAML file each
    Crds {
        /// The folder to write to
        #[arg(long, value_name = "DIR", default_value = "target/crds")]
        dir: PathBuf,
    },
    /// Random sequences of requests to ours and to Kubernetes' own server; what differs is shrunk to a file
    Differential {
        /// How many sequences
        #[arg(long, default_value_t = 20_000)]
        sequences: u64,
        /// Number n is made from seed + n
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Plant faults into the API server one by one (tests/api/mutations.json, crates/apiserver/tests/mutations.json); the tests must find each (half an hour)
    Mutations {
        /// Only those with this in their name
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Fuzz what clients send to the API server, and note the outcome in docs/soak.md
    Fuzz {
        /// Only the targets with this in their name (the folders of fuzz/corpus)
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// How long each
        #[arg(long, default_value_t = fuzzing::MINUTES)]
        minutes: u64,
    },
    /// Write tests/released-openapi.json again: at a release, when today's API becomes the one that clients rely on
    ReleaseOpenapi,
    /// Measurements: acknowledged writes of the store (a release build)
    Bench,
    /// Measures the cost of a cloud of simulated hosts while nothing happens in it (a build of profile quick)
    BenchHosts {
        /// Simulated hosts
        #[arg(long, default_value_t = 1000)]
        hosts: usize,
        /// Virtual machines on them
        #[arg(long, default_value_t = 10_000)]
        machines: usize,
    },
    /// Measurements: our API beside Kubernetes' own server and etcd, which are built once
    BenchApi {
        /// Instead, the processor time that the worst request for each decoder costs (profile `quick`); fails if one grows faster than its size
        #[arg(long)]
        bodies: bool,
        /// Objects for lists, selectors and memory
        #[arg(long, default_value_t = 100_000)]
        objects: usize,
        /// Writes the figures to docs/performance.md
        #[arg(long)]
        write: bool,
    },
    /// The comparison, crashes and fuzzing that this commit has not passed yet, then the suites again and again until one fails
    Soak {
        /// How long the suites
        #[arg(long, value_name = "MINUTES", default_value_t = 60)]
        minutes: u64,
    },
    /// Snapshots of the machine's state, to find what a run leaves behind
    Leftovers {
        #[command(subcommand)]
        command: LeftoversCommand,
    },
}

#[derive(Subcommand)]
enum LeftoversCommand {
    /// Write a snapshot of the machine's state
    Save {
        /// The file to write
        file: PathBuf,
    },
    /// Name everything that has appeared since `save`; fails when there is any
    Compare {
        /// The file that `save` wrote
        file: PathBuf,
    },
    /// End and remove everything that a test run has made since `save`: for a run that was cut off
    Clean {
        /// The file that `save` wrote
        file: PathBuf,
        /// The run's name
        run: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Tidy { warnings } => tidy::run(warnings),
        Command::Check => check::run(),
        Command::Test { stages, filter, list: true, .. } => stages::run(&stages, filter.as_deref(), true),
        Command::Test { stages, filter, rounds, burners, list: false } => {
            stages::run_rounds(&stages, filter.as_deref(), rounds, burners)
        }
        Command::TestReference { filter } => reference::test(filter.as_deref()),
        Command::Crds { dir } => reference::crds(&dir),
        Command::Differential { sequences, seed } => reference::differential(sequences, seed),
        Command::Mutations { only } => mutations::run(only.as_deref()),
        Command::Fuzz { only, minutes } => fuzzing::run(only.as_deref(), minutes),
        Command::ReleaseOpenapi => check::release_openapi(),
        Command::Bench => endurance::bench(),
        Command::BenchHosts { hosts, machines } => endurance::bench_hosts(hosts, machines),
        Command::BenchApi { bodies: true, .. } => reference::bench_bodies(),
        Command::BenchApi { objects, write, bodies: false } => reference::bench(objects, write),
        Command::Soak { minutes } => endurance::soak(std::time::Duration::from_secs(minutes * 60)),
        Command::Leftovers { command } => match command {
            LeftoversCommand::Save { file } => leftovers::save(&file),
            LeftoversCommand::Compare { file } => leftovers::compare(&file),
            LeftoversCommand::Clean { file, run } => cleanup::clean(&file, &run),
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
