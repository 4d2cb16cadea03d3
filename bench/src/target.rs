//! The servers that are measured, each started here on the core that servers share, and ended with the run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::load::Endpoint;

/// Servers have this core, the load the other: neither takes time from the other.
const SERVERS_CORE: &str = "0";

/// A running server.
pub struct Target {
    /// Its name in the report.
    pub name: &'static str,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// The namespace for the objects of the run.
    pub namespace: &'static str,
    kind: Kind,
}

enum Kind {
    Ours { program: PathBuf, instance: String, home: tempfile::TempDir },
    Original { starter: tokio::process::Child, _input: Option<tokio::process::ChildStdin> },
}

fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", SERVERS_CORE]).arg(program);
    command
}

impl Target {
    /// The whole product: supervisor and all roles, all controllers on.
    pub async fn ours(name: &'static str, program: &Path, kinds: &Path) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let run: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let instance = format!("evb-{run}");
        let mut up = pinned(program);
        up.args(["up", "--detach", "--no-hosts-block", "--uplink", "none", "--api-port", "0", "--https-port", "0"]);
        up.args(["--instance", &instance, "--crd-dir"]).arg(kinds).env("HOME", home.path()).stdout(Stdio::null());
        ensure!(up.status().context("start evrocd")?.success(), "evrocd did not start; its output is above");
        let kubeconfig = home.path().join(".evroc").join(&instance).join("kubeconfig");
        let endpoint = Endpoint::read(&kubeconfig).await?;
        let kind = Kind::Ours { program: program.to_owned(), instance, home };
        Ok(Self { name, endpoint, namespace: "demo", kind })
    }

    /// Kubernetes' own server for custom resources with its etcd, from the folder that `tests/reference/build` prints.
    pub async fn original(start: &Path, folder: &Path) -> Result<Self> {
        let mut command = tokio::process::Command::from(pinned(start));
        command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut starter = command.spawn().context("start the original")?;
        let input = starter.stdin.take();
        let mut lines = BufReader::new(starter.stdout.take().context("the original has no output")?).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(path) = line.strip_prefix("KUBECONFIG=") {
                let endpoint = Endpoint::read(Path::new(path)).await?;
                let kind = Kind::Original { starter, _input: input };
                return Ok(Self { name: "Kubernetes 1.36 + etcd 3.5", endpoint, namespace: "bench", kind });
            }
        }
        bail!("the original ended before it was ready")
    }

    /// Pids by what they are: `control`, `edge`, `node`, `supervisor`; or `kube-reference`, `etcd`.
    pub fn processes(&self) -> Result<Vec<(String, i32)>> {
        match &self.kind {
            Kind::Ours { program, instance, home } => {
                let status = Command::new(program)
                    .args(["status", "--output", "json", "--instance", instance])
                    .env("HOME", home.path())
                    .output()?;
                let status: Value = serde_json::from_slice(&status.stdout).context("read `evrocd status`")?;
                let pid = |value: &Value| value["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
                let supervisor = &status["supervisor"];
                let mut found: Vec<(String, i32)> =
                    pid(supervisor).into_iter().map(|pid| ("supervisor".to_owned(), pid)).collect();
                let roles = supervisor["roles"].as_object().into_iter().flatten();
                found.extend(roles.filter_map(|(name, role)| Some((name.clone(), pid(role)?))));
                Ok(found)
            }
            Kind::Original { starter, .. } => {
                let parent = starter.id().context("the original has ended")?;
                let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
                let name = |pid: i32| {
                    Some((std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned(), pid))
                };
                Ok(children.split_whitespace().filter_map(|pid| name(pid.parse().ok()?)).collect())
            }
        }
    }

    /// Memory of all processes in bytes. What several share, such as the program's own text, counts once.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.processes()?.iter().map(|(_, pid)| proportional(*pid)).sum())
    }

    /// Ends it and removes all that it stored.
    pub async fn end(self) -> Result<()> {
        match self.kind {
            Kind::Ours { program, instance, home } => {
                let mut down = Command::new(program);
                down.args(["down", "--purge", "--instance", &instance]).env("HOME", home.path()).stdout(Stdio::null());
                ensure!(down.status()?.success(), "evrocd did not stop; its output is above");
            }
            Kind::Original { mut starter, _input } => {
                drop(_input);
                starter.wait().await?;
            }
        }
        Ok(())
    }
}

/// How much of their cores the servers and the load take: who is near 100 % limits what is measured.
pub struct Meter {
    pids: Vec<i32>,
    started: Instant,
    before: (f64, f64),
}

impl Meter {
    /// Begins to count.
    pub fn start(target: &Target) -> Result<Self> {
        let pids: Vec<i32> = target.processes()?.into_iter().map(|(_, pid)| pid).collect();
        let before = (seconds(&pids)?, seconds(&[i32::try_from(std::process::id())?])?);
        Ok(Self { pids, started: Instant::now(), before })
    }

    /// For example `servers 98 %, load 61 %`.
    pub fn busy(&self) -> Result<String> {
        let passed = self.started.elapsed().as_secs_f64();
        let now = (seconds(&self.pids)?, seconds(&[i32::try_from(std::process::id())?])?);
        let share = |now: f64, before: f64| (now - before) / passed * 100.0;
        Ok(format!("servers {:.0} %, load {:.0} %", share(now.0, self.before.0), share(now.1, self.before.1)))
    }
}

/// Seconds of a processor that processes have taken.
pub fn seconds(pids: &[i32]) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read a process's times")?;
        // User and system time stand 12th and 13th after the name, which may hold spaces.
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        ticks += times.filter_map(|time| time.parse::<f64>().ok()).sum::<f64>();
    }
    // USER_HZ is 100 wherever Linux runs our servers.
    Ok(ticks / 100.0)
}

/// Returns the resident memory of a process in bytes; 0 when it has ended.
pub fn resident(pid: i32) -> u64 {
    kibibytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Returns the same with its share of shared memory: expensive for a large process.
fn proportional(pid: i32) -> u64 {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kibibytes(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Flushes that the disks of this machine have completed.
pub fn flushes() -> u64 {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    // The 16th number after the name; see the kernel's Documentation/admin-guide/iostats.rst.
    text.lines().filter_map(|line| line.split_whitespace().nth(18)?.parse::<u64>().ok()).sum()
}
