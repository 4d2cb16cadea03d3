//! One run: its name, its temporary folder, and programs that are started with a deadline, logged and counted.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use evroc_tests::process::Output;
use evroc_tests::{names, process};

use super::libtest;
use super::pace::Pace;
use super::report::Tally;
use crate::repo;

/// How much of a failing program's output goes to the screen.
const LINES_SHOWN: usize = 80;

/// A test program that the build made.
#[derive(Debug, Clone)]
pub struct Program {
    /// Package and kind: `evroc-node`, `evroc-tests suites`.
    pub name: String,
    /// The package it belongs to.
    pub package: String,
    /// The folder of the package: tests run there.
    pub dir: PathBuf,
    /// The path.
    pub executable: PathBuf,
}

/// The state of a run between its stages.
pub struct Run {
    /// Unique on this machine; everything started by the run has it in its environment.
    pub name: String,
    /// Only tests with this in their name.
    pub filter: Option<String>,
    /// The path of this program, read once: the stage `build` may replace the file.
    pub own_program: PathBuf,
    /// The programs that the stage `build` made.
    pub programs: Vec<Program>,
    temporary: PathBuf,
    stage: &'static str,
    pace: Pace,
    /// When the stage's budget is used up, on the clock of `pace`.
    limit: Duration,
    tally: Tally,
}

/// The path of this program. It is looked up once: a stage that builds the workspace may replace the file, and the kernel would then
/// report a path that does not exist.
fn own_program() -> Result<PathBuf> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    let path = std::env::current_exe().context("find this program")?;
    Ok(PATH.get_or_init(|| path).clone())
}

impl Run {
    /// Starts a run: makes its temporary folder and takes a snapshot of the machine.
    pub fn begin(filter: Option<&str>) -> Result<Run> {
        let name = names::random();
        let temporary = Path::new("/tmp").join(&name);
        fs::create_dir(&temporary).with_context(|| format!("make {}", temporary.display()))?;
        // The unprivileged roles and guests of test instances use it too.
        fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        let logs = logs();
        fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
        let filter = filter.map(str::to_owned);
        let own_program = own_program()?;
        let run = Run {
            name,
            filter,
            own_program,
            programs: Vec::new(),
            temporary,
            stage: "",
            pace: Pace::start(),
            limit: Duration::ZERO,
            tally: Tally::default(),
        };
        let saved = run.as_root(&run.own_program).args(["leftovers", "save"]).arg(run.snapshot()).status();
        saved.context("note what the machine holds")?;
        Ok(run)
    }

    /// Begins a stage.
    pub fn enter(&mut self, stage: &'static str, budget: Duration) {
        self.stage = stage;
        self.limit = self.pace.counted() + budget;
        self.tally = Tally::default();
        let _ = fs::remove_file(self.log());
    }

    /// Ends a stage and hands out its count.
    pub fn leave(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Removes the files of the run itself.
    pub fn end(&self) {
        let _ = self.as_root(Path::new("rm")).arg("-rf").arg(&self.temporary).status();
    }

    /// The path of the snapshot of the beginning; outside the temporary folder, which the run counts too.
    pub fn snapshot(&self) -> PathBuf {
        logs().join("machine-before.json")
    }

    /// Lists what tests have left in the run's temporary folder.
    pub fn temporary_entries(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.temporary).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect()
    }

    /// A command with the run's environment, as the caller.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(repo::root()).envs(self.environment());
        command
    }

    /// The same with root's rights: as it is for root, through sudo for others.
    pub fn as_root(&self, program: &Path) -> Command {
        if is_root() {
            return self.command(program);
        }
        let mut command = self.command(Path::new("sudo"));
        // sudo drops the environment: pass on the variables that tests need.
        let kept = ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR", "UPDATE", "RUST_LOG", "EVROC_TOUR_AT"];
        let kept = kept.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        command.arg("env").args(kept.chain(self.environment()).map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
        command
    }

    /// Runs one check that passes by ending with success.
    pub fn check(&mut self, name: &str, command: &mut Command) -> Result<bool> {
        let output = self.output(command)?;
        self.append_log(name, &output.both)?;
        self.line(output.ok(), name, "", output.took);
        if output.ok() {
            self.tally.passed += 1;
        } else {
            println!("{}\n       {name}: {}", indent(&tail(&output.both, LINES_SHOWN)), output.ending());
            self.tally.failed.push(name.to_owned());
        }
        Ok(output.ok())
    }

    /// Runs one test program and counts its tests. With root's rights it runs the tests too that are ignored without them.
    pub fn test(&mut self, program: &Program, arguments: &[&str], root: bool) -> Result<()> {
        let mut command = if root { self.as_root(&program.executable) } else { self.command(&program.executable) };
        if root {
            command.arg("--include-ignored");
        }
        command.args(arguments);
        self.run_test(&program.name, &program.dir, command)
    }

    /// Runs one test program once more, with other settings in its environment, as the caller.
    pub fn test_with(&mut self, program: &Program, settings: &[(&str, &str)], suffix: &str) -> Result<()> {
        let mut command = self.command(&program.executable);
        command.envs(settings.iter().copied());
        self.run_test(&format!("{}{suffix}", program.name), &program.dir, command)
    }

    fn run_test(&mut self, name: &str, dir: &Path, mut command: Command) -> Result<()> {
        command.current_dir(dir);
        if let Some(filter) = &self.filter {
            command.arg(filter);
        }
        let output = self.output(&mut command)?;
        self.append_log(name, &output.both)?;
        let tally = libtest::tally(name, &output.both, output.ok());
        let mut count = format!("{} passed, {} failed", tally.passed, tally.failed.len());
        if tally.skipped > 0 {
            count += &format!(", {} skipped", tally.skipped);
        }
        self.line(tally.failed.is_empty(), name, &count, output.took);
        if !tally.failed.is_empty() {
            println!("{}", indent(&libtest::reasons(&output.both, LINES_SHOWN)));
            println!("       {name}: {}", output.ending());
        }
        for name in libtest::unfinished(&output.both) {
            println!("       still running when it was ended: {name}");
        }
        self.tally.add(tally);
        Ok(())
    }

    /// Counts a failure that is not a program's.
    pub fn record_failure(&mut self, name: &str, reason: &str) {
        self.line(false, name, "", Duration::ZERO);
        println!("{}", indent(reason));
        self.tally.failed.push(name.to_owned());
    }

    /// Counts a check that was not made.
    pub fn record_skipped(&mut self, name: &str, reason: &str) {
        println!("  --   {name:<34} skipped: {reason}");
        self.tally.skipped += 1;
    }

    /// Counts a pass that is not a program's.
    pub fn record_pass(&mut self, name: &str, took: Duration) {
        self.line(true, name, "", took);
        self.tally.passed += 1;
    }

    /// Runs a command to its end. When the stage's budget is used up first, the command is ended, and what it started is removed
    /// from the machine, so that the next stage does not fail for it.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let output = process::run_unless(command, || self.pace.counted() >= self.limit)?;
        if output.timed_out {
            let mut clean = self.as_root(&self.own_program);
            let status = clean.args(["leftovers", "clean"]).arg(self.snapshot()).arg(&self.name).status();
            status.context("remove what an ended command left behind")?;
        }
        Ok(output)
    }

    /// Adds to the stage's log.
    pub fn append_log(&self, title: &str, text: &str) -> Result<()> {
        let path = self.log();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        writeln!(file, "==== {title}\n{text}").with_context(|| format!("write {}", path.display()))
    }

    fn log(&self) -> PathBuf {
        logs().join(format!("{}.log", self.stage))
    }

    fn line(&self, passed: bool, name: &str, count: &str, took: Duration) {
        println!("  {} {name:<34} {count:<24} {:>7.1} s", if passed { "ok  " } else { "FAIL" }, took.as_secs_f64());
    }

    fn environment(&self) -> Vec<(String, String)> {
        let tools = repo::root().join(".tools/bin");
        let path = std::env::var("PATH").unwrap_or_default();
        vec![
            ("EVROC_TEST_RUN".to_owned(), self.name.clone()),
            ("TMPDIR".to_owned(), self.temporary.display().to_string()),
            // Debian keeps nft and the like where an ordinary user's PATH does not look.
            ("PATH".to_owned(), format!("{}:{path}:/usr/local/sbin:/usr/sbin:/sbin", tools.display())),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
            ("CARGO".to_owned(), repo::cargo()),
        ]
    }
}

/// Whether this process may do everything: the owner of its own entry in /proc is its user.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn logs() -> PathBuf {
    repo::root().join("target/test-logs")
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("       | {line}")).collect::<Vec<_>>().join("\n")
}
