//! A machine that runs: its conversation with the hypervisor, and how it is stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evroc_vmm::{GuestState, Hypervisor, Monitor, MonitorError};
use tokio::sync::Mutex;

use super::error::MachineError;
use super::guests::{RunId, StopManner, Stopped};
use super::record::MachineRecord;
use crate::shim::{Attached, ClientError, Exit, ShimClient};

/// For the monitor's greeting: the hypervisor has to load its firmware and open its disks first.
const MONITOR_LIMIT: Duration = Duration::from_secs(60);
/// The time between the order to end and the kill of the hypervisor. It closes its disks in this time: shorter risks unwritten work,
/// not data that a guest was promised to be safe.
const QUIT_LIMIT: Duration = Duration::from_secs(10);
/// For an answer of the monitor while a machine is being stopped or looked at.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between two presses of the power button.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

/// The connection to the monitor, shared by all handles.
pub(super) type MonitorSlot = Arc<Mutex<Option<Arc<dyn Monitor>>>>;

/// A running machine. Cheap to clone; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) record: MachineRecord,
    pub(super) shim: ShimClient,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) socket: PathBuf,
    pub(super) monitor: MonitorSlot,
}

impl Machine {
    /// The record of the machine.
    pub fn record(&self) -> &MachineRecord {
        &self.record
    }

    /// Its shim: processes, console, wait for the end.
    pub fn shim(&self) -> &ShimClient {
        &self.shim
    }

    /// Names this run: the hypervisor's process.
    pub fn run_id(&self) -> RunId {
        let child = self.shim.record().child;
        // Process ids have at most 22 bits (`PID_MAX_LIMIT`).
        RunId(child.start_time << 22 | u64::from(child.pid.unsigned_abs()))
    }

    /// Attaches to the serial console.
    pub async fn console(&self, replay_bytes: usize) -> Result<Attached, MachineError> {
        Ok(self.shim.attach(replay_bytes).await?)
    }

    /// The conversation with its hypervisor, begun when first needed and again after it broke off.
    pub async fn monitor(&self) -> Result<Arc<dyn Monitor>, MachineError> {
        let mut kept = self.monitor.lock().await;
        if let Some(monitor) = &*kept
            && !matches!(monitor.state().await, Err(MonitorError::Closed { .. }))
        {
            return Ok(monitor.clone());
        }
        // The old one first, if there is any: the new one would wait for it.
        *kept = None;
        let monitor: Arc<dyn Monitor> = self.hypervisor.connect(&self.socket, MONITOR_LIMIT).await?.into();
        *kept = Some(monitor.clone());
        Ok(monitor)
    }

    /// Returns the state of the guest, found out within [`ANSWER_LIMIT`].
    pub async fn state(&self) -> Result<GuestState, MachineError> {
        let late = || MonitorError::Late { command: "query-status".into(), limit: ANSWER_LIMIT };
        let answer = limited(async { Ok(self.monitor().await?.state().await?) }).await;
        answer.unwrap_or_else(|| Err(late().into()))
    }

    /// The monitor's name of the volume at this place of the configuration, for growing it online.
    pub fn disk_id(index: usize) -> String {
        disk_id(index)
    }

    /// Presses the power button until the guest has powered itself off or the time is over. A guest that is still booting does not
    /// react to the first press.
    async fn power_down(&self, monitor: &dyn Monitor, grace: Duration) -> Option<Exit> {
        let end = tokio::time::Instant::now() + grace;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return None;
            }
            // A guest that is just ending refuses; what counts is whether it ends.
            let _ = limited(monitor.power_down()).await;
            if let Some(exit) = self.shim.wait_at_most(left.min(PRESS_AGAIN)).await {
                return Some(exit);
            }
        }
    }

    /// Lets a paused guest go on, and says whether it is executed then. One whose disk is still full is paused again at once.
    async fn can_hear(&self, monitor: &dyn Monitor) -> bool {
        let state = || async { limited(monitor.state()).await.and_then(Result::ok) };
        match state().await {
            Some(GuestState::Running) => true,
            Some(paused) if paused.can_resume() => {
                let _ = limited(monitor.resume()).await;
                state().await == Some(GuestState::Running)
            }
            _ => false,
        }
    }

    /// See [`MachineRunner::stop`](super::MachineRunner::stop).
    pub(super) async fn end(&self, grace: Duration) -> Result<Stopped, MachineError> {
        let stopped = |manner| move |exit| Stopped { manner, exit };
        let mut quit = StopManner::Quit;
        // A hypervisor that hangs is not waited for as long as one that is starting.
        let monitor = limited(self.monitor()).await;
        if let Some(Ok(monitor)) = &monitor {
            if !grace.is_zero() && !self.can_hear(monitor.as_ref()).await {
                quit = StopManner::Paused;
                tracing::warn!(
                    machine = self.record.uid,
                    name = self.record.name,
                    "the guest is not executed and cannot be asked to power off: data that it has not written is lost"
                );
            } else if let Some(exit) = self.power_down(monitor.as_ref(), grace).await {
                return Ok(stopped(StopManner::PoweredOff)(exit));
            }
            if let Some(Ok(())) = limited(monitor.quit()).await
                && let Some(exit) = self.shim.wait_at_most(QUIT_LIMIT).await
            {
                return Ok(stopped(quit)(exit));
            }
        }
        let killed = self.shim.signal(libc::SIGKILL).await;
        match self.shim.wait_at_most(QUIT_LIMIT).await {
            Some(exit) => Ok(stopped(StopManner::Killed)(exit)),
            None => Err(killed.err().unwrap_or(ClientError::Lost { id: self.shim.record().id.clone() }).into()),
        }
    }
}

async fn limited<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(ANSWER_LIMIT, answer).await.ok()
}

pub(super) fn disk_id(index: usize) -> String {
    format!("disk{index}")
}
