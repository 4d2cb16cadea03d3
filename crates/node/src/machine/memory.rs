//! Guests in memory: the driver of simulated hosts and of tests. Failures of the real driver can be planted here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use evroc_vmm::{GuestState, Offers};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::sync::{broadcast, watch};

use super::devices::{Change, GuestDisk};
use super::error::MachineError;
use super::guests::{GuestChange, Guests, Log, ObservedMachine, Run, RunId};
use super::{AcceleratorKind, MachineConfig, Nic, StopManner, Stopped};
use crate::io::BoxDuplex;
use crate::pool::{MemoryPool, Pool as _};
use crate::shim::Exit;

/// Changes that a listener may be behind.
const WAITING: usize = 64;

/// The planted failures; none by default. A text is the message of the error.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Looking fails.
    pub look: Option<String>,
    /// The hypervisor does not report its state.
    pub state: Option<String>,
    /// Starting fails, and nothing runs.
    pub start: Option<String>,
    /// Stopping waits until this is lifted.
    pub never_ends: bool,
    /// Guests have no ssh server.
    pub never_greets: bool,
}

/// The state that guests in memory share; by default nothing is checked.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    /// The memory of all guests together, in bytes.
    pub memory_bytes: Option<u64>,
    /// The pool that has their volumes: guests hold them open.
    pub pool: Option<MemoryPool>,
}

/// Imagined guests. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct MemoryGuests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    shares: Shares,
    faults: watch::Sender<Faults>,
    /// Raised by each death of the agent.
    lives: watch::Sender<u64>,
    changes: broadcast::Sender<(String, GuestChange)>,
}

#[derive(Debug, Default)]
struct Book {
    machines: BTreeMap<String, Imagined>,
    last_logs: BTreeMap<String, String>,
    deleted: BTreeSet<String>,
    runs: u64,
    starts: Vec<String>,
    ends: Vec<String>,
    violations: Vec<String>,
}

#[derive(Clone, Debug)]
struct Imagined {
    config: MachineConfig,
    observed: ObservedMachine,
    state: GuestState,
    disks: Vec<GuestDisk>,
    log: String,
}

impl Default for MemoryGuests {
    fn default() -> Self {
        Self::sharing(Shares::default())
    }
}

impl MemoryGuests {
    /// Guests of a host that has this much. What does not fit is started all the same, and is a violation.
    pub fn sharing(shares: Shares) -> Self {
        Self(Arc::new(Shared {
            book: Mutex::default(),
            shares,
            lives: watch::Sender::new(0),
            faults: watch::Sender::new(Faults::default()),
            changes: broadcast::channel(WAITING).0,
        }))
    }

    /// Plants faults, or lifts them.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.0.faults.send_modify(change);
    }

    /// Ends the calls that wait, as the death of the agent that made them does.
    pub fn interrupt(&self) {
        self.0.lives.send_modify(|lives| *lives += 1);
    }

    /// Whether the ssh server of a machine's guest greets.
    pub fn greets(&self, uid: &str) -> bool {
        let greets = !self.0.faults.borrow().never_greets;
        greets && self.with(uid, |machine| machine.state == GuestState::Running).unwrap_or(false)
    }

    /// Makes a guest power itself off.
    pub fn power_off(&self, uid: &str) {
        self.end(uid, "ended with code 0", Some(0), "");
    }

    /// Makes a hypervisor end with an error.
    pub fn crash(&self, uid: &str) {
        self.end(uid, "ended with code 1", Some(1), "");
    }

    /// Ends a hypervisor by a signal from outside, as QEMU reports that.
    pub fn terminate(&self, uid: &str) {
        self.end(uid, "ended with code 0", Some(0), "qemu: terminating on signal 15 from pid 7 (kill)\n");
    }

    /// Kills a shim: nothing can reach the hypervisor any more.
    pub fn kill_shim(&self, uid: &str) {
        if let Some(machine) = self.book().machines.get_mut(uid) {
            machine.observed = ObservedMachine::Orphaned("its shim was killed".into());
        }
        self.notify(uid, GuestChange::Ended);
    }

    /// Makes a guest reboot.
    pub fn reboot(&self, uid: &str) {
        self.notify(uid, GuestChange::Reset);
    }

    /// Changes the state of the guest in the hypervisor.
    pub fn set_state(&self, uid: &str, state: GuestState) {
        if let Some(machine) = self.book().machines.get_mut(uid) {
            machine.state = state;
        }
        self.notify(uid, GuestChange::StateChanged);
    }

    /// Uids of the machines whose hypervisor lives.
    pub fn running(&self) -> Vec<String> {
        let book = self.book();
        let lives =
            |machine: &Imagined| matches!(machine.observed, ObservedMachine::Running(_) | ObservedMachine::Orphaned(_));
        book.machines.iter().filter(|(_, machine)| lives(machine)).map(|(uid, _)| uid.clone()).collect()
    }

    /// The configurations of the machines whose hypervisor lives.
    pub fn configurations(&self) -> Vec<MachineConfig> {
        let running = self.running();
        let book = self.book();
        running.iter().filter_map(|uid| Some(book.machines.get(uid)?.config.clone())).collect()
    }

    /// Names of the machines that were ever started, in order.
    pub fn starts(&self) -> Vec<String> {
        self.book().starts.clone()
    }

    /// Uids of the machines that were ever ended on request, in order.
    pub fn ends(&self) -> Vec<String> {
        self.book().ends.clone()
    }

    /// Requests that should never have been made.
    pub fn violations(&self) -> Vec<String> {
        self.book().violations.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, uid: &str, change: GuestChange) {
        // The receiver may be dropped.
        let _ = self.0.changes.send((uid.to_owned(), change));
    }

    fn end(&self, uid: &str, reason: &str, code: Option<i32>, stderr: &str) {
        if let Some(machine) = self.book().machines.get_mut(uid)
            && let ObservedMachine::Running(run) = &machine.observed
        {
            let started_at = Some(run.started_at);
            self.0.close(machine);
            let (reason, stderr_tail) = (reason.into(), stderr.into());
            machine.observed =
                ObservedMachine::Ended(Exit { code, reason, started_at, stderr_tail, ..Exit::default() });
        }
        self.notify(uid, GuestChange::Ended);
    }

    fn fails(&self, uid: &str, operation: &'static str, fault: Option<&String>) -> Result<(), MachineError> {
        let Some(text) = fault else { return Ok(()) };
        let source = io::Error::other(text.clone());
        Err(MachineError::Io { uid: uid.to_owned(), operation, path: "memory".into(), source })
    }

    fn with<T>(&self, uid: &str, use_it: impl FnOnce(&mut Imagined) -> T) -> Result<T, MachineError> {
        match self.book().machines.get_mut(uid) {
            Some(machine) if matches!(machine.observed, ObservedMachine::Running(_)) => Ok(use_it(machine)),
            _ => Err(MachineError::NotRunning { uid: uid.to_owned() }),
        }
    }

    /// Fails if the agent dies meanwhile.
    async fn until_it_may_end(&self, uid: &str) -> Result<(), MachineError> {
        let (mut faults, mut lives) = (self.0.faults.subscribe(), self.0.lives.subscribe());
        // The senders are in `self`: waiting does not fail.
        tokio::select! {
            _ = faults.wait_for(|faults| !faults.never_ends) => Ok(()),
            _ = lives.changed() => self.fails(uid, "wait for the end of", Some(&"interrupted".to_owned())),
        }
    }
}

impl Shared {
    /// Opens the volumes of a machine that starts: all or none.
    fn open(&self, config: &MachineConfig) -> Result<(), MachineError> {
        let Some(pool) = &self.shares.pool else { return Ok(()) };
        for (index, volume) in config.volumes.iter().enumerate() {
            if let Err(error) = pool.open(&volume.uid, &config.name) {
                config.volumes[..index].iter().for_each(|opened| pool.close(&opened.uid));
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Closes the volumes of a machine that ends.
    fn close(&self, machine: &Imagined) {
        if let Some(pool) = &self.shares.pool {
            machine.disks.iter().for_each(|disk| pool.close(&disk.volume));
        }
    }
}

impl Book {
    /// Returns the conflicts of a machine that starts with those that run.
    fn wrong_with(&self, config: &MachineConfig, memory_bytes: Option<u64>) -> Vec<String> {
        let running: Vec<&MachineConfig> = self
            .machines
            .values()
            .filter(|other| matches!(other.observed, ObservedMachine::Running(_) | ObservedMachine::Orphaned(_)))
            .map(|other| &other.config)
            .collect();
        let shared = running.iter().find_map(|other| {
            let used = other.volumes.iter().find(|used| config.volumes.iter().any(|volume| volume.uid == used.uid))?;
            Some(format!("{} and {} both have volume {}", other.name, config.name, used.uid))
        });
        let used: u64 = running.iter().map(|other| other.memory_bytes).sum();
        let too_much = memory_bytes
            .filter(|all| used + config.memory_bytes > *all)
            .map(|all| format!("{} does not fit: {used} of {all} bytes are in use", config.name));
        shared.into_iter().chain(too_much).collect()
    }
}

fn disk(volume: &str, size_bytes: u64, is_hot: bool) -> GuestDisk {
    GuestDisk { id: format!("disk-{volume}"), volume: volume.to_owned(), size_bytes, is_hot }
}

#[async_trait]
impl Guests for MemoryGuests {
    async fn observe(&self, uid: &str) -> Result<ObservedMachine, MachineError> {
        self.fails(uid, "look at", self.0.faults.borrow().look.as_ref())?;
        Ok(self.book().machines.get(uid).map_or(ObservedMachine::Absent, |machine| machine.observed.clone()))
    }

    async fn state(&self, uid: &str) -> Result<GuestState, MachineError> {
        self.fails(uid, "ask the hypervisor of", self.0.faults.borrow().state.as_ref())?;
        self.with(uid, |machine| machine.state)
    }

    async fn start(&self, config: &MachineConfig, _: Option<Nic>) -> Result<Run, MachineError> {
        self.fails(&config.uid, "start", self.0.faults.borrow().start.as_ref())?;
        if let Ok(ObservedMachine::Running(run)) = self.observe(&config.uid).await {
            return Ok(run);
        }
        let mut book = self.book();
        let wrong = book.wrong_with(config, self.0.shares.memory_bytes);
        book.violations.extend(wrong);
        self.0.open(config)?;
        book.runs += 1;
        book.starts.push(config.name.clone());
        let run = Run { id: RunId(book.runs), started_at: Timestamp::now() };
        let machine = Imagined {
            config: config.clone(),
            observed: ObservedMachine::Running(run.clone()),
            state: GuestState::Running,
            disks: config.volumes.iter().map(|v| disk(&v.uid, v.size_bytes.unwrap_or_default(), false)).collect(),
            log: format!("run {} of {}\n{}", book.runs, config.name, evroc_vmm::simulated::PROMPT),
        };
        book.machines.insert(config.uid.clone(), machine);
        Ok(run)
    }

    async fn stop(&self, uid: &str, grace: Duration) -> Result<Option<Stopped>, MachineError> {
        let observed = self.book().machines.get(uid).map(|machine| machine.observed.clone());
        let manner = match observed {
            None => return Ok(None),
            Some(ObservedMachine::Ended(exit)) => return Ok(Some(Stopped { manner: StopManner::AlreadyEnded, exit })),
            Some(_) if grace.is_zero() => StopManner::Quit,
            Some(_) => StopManner::PoweredOff,
        };
        self.until_it_may_end(uid).await?;
        self.book().ends.push(uid.to_owned());
        let exit = Exit { code: Some(0), reason: "ended with code 0".into(), ..Exit::default() };
        if let Some(machine) = self.book().machines.get_mut(uid) {
            self.0.close(machine);
            machine.observed = ObservedMachine::Ended(exit.clone());
        }
        self.notify(uid, GuestChange::Ended);
        Ok(Some(Stopped { manner, exit }))
    }

    async fn end_orphan(&self, uid: &str) -> Result<(), MachineError> {
        let mut book = self.book();
        book.ends.push(uid.to_owned());
        if let Some(machine) = book.machines.get_mut(uid) {
            let started_at = Some(Timestamp::now());
            self.0.close(machine);
            machine.observed =
                ObservedMachine::Ended(Exit { reason: "its shim was killed".into(), started_at, ..Exit::default() });
        }
        Ok(())
    }

    async fn resume(&self, uid: &str) -> Result<bool, MachineError> {
        let can_go_on = self.with(uid, |machine| {
            let can_go_on = machine.state.can_resume() && machine.state != GuestState::DiskError { is_full: true };
            if can_go_on {
                machine.state = GuestState::Running;
            }
            can_go_on
        })?;
        self.notify(uid, GuestChange::StateChanged);
        Ok(can_go_on)
    }

    async fn pause(&self, uid: &str) -> Result<(), MachineError> {
        self.with(uid, |machine| machine.state = GuestState::Paused)?;
        self.notify(uid, GuestChange::StateChanged);
        Ok(())
    }

    async fn reset(&self, uid: &str) -> Result<(), MachineError> {
        self.with(uid, |_| ())?;
        self.reboot(uid);
        Ok(())
    }

    async fn remove(&self, uid: &str) -> Result<(), MachineError> {
        self.stop(uid, Duration::ZERO).await?;
        let mut book = self.book();
        if let Some(machine) = book.machines.remove(uid) {
            book.last_logs.insert(machine.config.seed.instance_id, machine.log);
        }
        book.deleted.remove(uid);
        Ok(())
    }

    async fn list(&self) -> Result<BTreeSet<String>, MachineError> {
        self.fails("", "list", self.0.faults.borrow().look.as_ref())?;
        Ok(self.book().machines.keys().cloned().collect())
    }

    async fn mark_deleted(&self, uid: &str) -> Result<(), MachineError> {
        let mut book = self.book();
        if book.machines.contains_key(uid) {
            book.deleted.insert(uid.to_owned());
        }
        Ok(())
    }

    async fn is_deleted(&self, uid: &str) -> Result<bool, MachineError> {
        Ok(self.book().deleted.contains(uid))
    }

    async fn disks(&self, uid: &str) -> Result<Vec<GuestDisk>, MachineError> {
        self.with(uid, |machine| machine.disks.clone())
    }

    async fn change_disk(&self, uid: &str, change: &Change) -> Result<(), MachineError> {
        if let Some(pool) = &self.0.shares.pool {
            match change {
                Change::Grow { volume, size_bytes, .. } => drop(pool.grown(volume, *size_bytes).await?),
                Change::Detach { volume, .. } => pool.close(volume),
                Change::Attach { volume, .. } => pool.open(volume, uid)?,
            }
        }
        self.with(uid, |machine| match change {
            Change::Grow { id, size_bytes, .. } => {
                machine.disks.iter_mut().filter(|disk| disk.id == *id).for_each(|disk| disk.size_bytes = *size_bytes);
            }
            Change::Detach { id, .. } => machine.disks.retain(|disk| disk.id != *id),
            Change::Attach { volume, .. } => machine.disks.push(disk(volume, 0, true)),
        })
    }

    async fn changes(&self, uid: &str) -> Result<BoxStream<'static, GuestChange>, MachineError> {
        // Subscribed before the look: what happens in between is not missed.
        let receiver = self.0.changes.subscribe();
        self.with(uid, |_| ())?;
        let uid = uid.to_owned();
        let changes = futures::stream::unfold(receiver, move |mut receiver| {
            let uid = uid.clone();
            async move {
                loop {
                    match receiver.recv().await {
                        Ok((of, change)) if of == uid => return Some((change, receiver)),
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(_)) => {
                            return Some((GuestChange::StateChanged, receiver));
                        }
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            }
        });
        Ok(changes.boxed())
    }

    async fn console(&self, uid: &str, _: usize) -> Result<BoxDuplex, MachineError> {
        let log = self.with(uid, |machine| machine.log.clone())?;
        let (ours, mut guest) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let (mut input, mut output) = tokio::io::split(&mut guest);
            // Echoes the input, as the simulated hypervisor does.
            if output.write_all(log.as_bytes()).await.is_ok() {
                let _ = tokio::io::copy(&mut input, &mut output).await;
            }
        });
        Ok(Box::new(ours))
    }

    async fn serial_log(&self, log: Log<'_>, tail_bytes: u64) -> Result<Option<Vec<u8>>, MachineError> {
        let book = self.book();
        let text = match log {
            Log::Machine(uid) => book.machines.get(uid).map(|machine| &machine.log),
            Log::Previous(virtual_machine) => book.last_logs.get(virtual_machine),
        };
        let tail = |text: &String| {
            let skipped = text.len().saturating_sub(usize::try_from(tail_bytes).unwrap_or(usize::MAX));
            text.as_bytes()[skipped..].to_vec()
        };
        Ok(text.map(tail))
    }

    async fn offers(&self, _: AcceleratorKind) -> Result<Offers, MachineError> {
        let name = vec!["simulated-1".to_owned()];
        Ok(Offers { machine_types: name.clone(), cpu_models: name })
    }
}
