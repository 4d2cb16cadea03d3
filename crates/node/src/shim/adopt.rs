//! Finds out what became of a shim that an earlier agent started.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;

use super::client::ShimClient;
use super::files;
use super::process::{ProcessHandle, boot_id};
use super::spec::{Exit, PidRecord, SPEC_VERSION, Spec};
use crate::cgroup::kill_members;

/// How long a shim that holds its lock may be silent: it is starting (or its process is stopped, which should never happen).
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The state of the shim that a folder belongs to.
#[derive(Debug)]
pub enum Adopted {
    /// Shim and workload live; this talks to them.
    Running(ShimClient),
    /// The workload has ended.
    Exited(Exit),
    /// The shim ended without a record: it was killed, or the host was restarted. Call [`LostShim::end`].
    ShimLost(Box<LostShim>),
    /// Nothing was ever started in this folder.
    Never,
}

/// The remains of a shim that did not end in order.
#[derive(Debug)]
pub struct LostShim {
    /// The workload, if it still runs: its streams have no reader.
    pub child: Option<ProcessHandle>,
    /// One sentence for people.
    pub reason: String,
    /// Whether this happened in an earlier boot of the host.
    pub is_after_reboot: bool,
    dir: PathBuf,
    spec: Option<Spec>,
    record: PidRecord,
}

/// Looks at the folder of a shim. Waits for one that is just starting; a shim that lives but does not answer is an error of kind
/// `TimedOut`.
pub async fn adopt(dir: &Path) -> io::Result<Adopted> {
    adopt_within(dir, SILENCE_LIMIT).await
}

/// The same, with another patience for a shim that does not answer.
pub async fn adopt_within(dir: &Path, patience: Duration) -> io::Result<Adopted> {
    let limit = tokio::time::Instant::now() + patience;
    loop {
        if !files::is_locked(dir)? {
            return adopt_dead(dir);
        }
        let error = match connect(dir).await {
            Ok(client) => return Ok(Adopted::Running(client)),
            Err(error) => error,
        };
        if tokio::time::Instant::now() > limit {
            let text = format!("the shim in {} lives but does not answer: {error}", dir.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn connect(dir: &Path) -> io::Result<ShimClient> {
    let spec: Option<Spec> = files::read_json(dir, "spec.json")?;
    let record: Option<PidRecord> = files::read_json(dir, "pid.json")?;
    let (Some(spec), Some(record)) = (spec, record) else { return Err(io::ErrorKind::NotFound.into()) };
    let client = ShimClient::new(dir, &spec, record);
    client.connect().await.map_err(io::Error::other)?;
    Ok(client)
}

fn adopt_dead(dir: &Path) -> io::Result<Adopted> {
    if let Some(exit) = files::read_json(dir, "exit.json")? {
        // The shim was not permitted to, once it had dropped its privileges.
        if let Some(spec) = files::read_json::<Spec>(dir, "spec.json")? {
            files::remove_path(&spec.socket)?;
        }
        return Ok(Adopted::Exited(exit));
    }
    let Some(record) = files::read_json::<PidRecord>(dir, "pid.json")? else { return Ok(Adopted::Never) };
    let is_after_reboot = record.boot_id != boot_id()?;
    let (child, reason) =
        if is_after_reboot { (None, "the host was restarted") } else { (record.child.open()?, "its shim was killed") };
    let spec = files::read_json(dir, "spec.json")?;
    Ok(Adopted::ShimLost(Box::new(LostShim {
        child,
        reason: reason.to_owned(),
        is_after_reboot,
        dir: dir.to_owned(),
        spec,
        record,
    })))
}

impl LostShim {
    /// Ends what still runs, first by SIGTERM, after `grace` by SIGKILL, and records the end in `exit.json`.
    pub async fn end(self, grace: Duration) -> io::Result<Exit> {
        if let Some(child) = &self.child {
            child.signal(Signal::TERM)?;
            if tokio::time::timeout(grace, child.wait()).await.is_err() {
                child.signal(Signal::KILL)?;
                child.wait().await?;
            }
        }
        if let (false, Some(spec)) = (self.is_after_reboot, &self.spec) {
            for cgroup in &spec.cgroups {
                kill_members(cgroup, Some(rustix::process::getpid()));
            }
            files::remove_path(&spec.socket)?;
        }
        let exit = Exit {
            version: SPEC_VERSION,
            id: self.record.id.clone(),
            started_at: Some(self.record.started_at),
            finished_at: Timestamp::now(),
            reason: self.reason,
            ..Exit::default()
        };
        files::write_json(&self.dir, "exit.json", 0o644, &exit)?;
        Ok(exit)
    }
}
