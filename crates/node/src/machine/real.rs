//! [`MachineRunner`] as the agent's driver of guests.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use evroc_vmm::{ActualDisk, Events, GuestEvent, GuestState, HotDisk, Offers};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::devices::{Change, GuestDisk};
use super::error::{MachineError, failed};
use super::guests::{GuestChange, Guests, Log, ObservedMachine, Run};
use super::paths::last_logs;
use super::runner::{FoundMachine, MachineRunner, record};
use super::{AcceleratorKind, Machine, MachineConfig, Nic, Stopped, exclusive, record as records};
use crate::io::{BoxDuplex, if_present};
use crate::pool::{self, Owner};
use crate::shim::{ClientError, tail};

/// Between two tries to reach a hypervisor that does not answer, or a shim. Shorter costs processor time while it lasts; longer
/// delays the news of an end.
const REACH_AGAIN: Duration = Duration::from_secs(1);
/// Changes that wait for the agent; they only say "look", so that one would do.
const WAITING: usize = 8;
/// Room that a disk must have before a guest that filled it goes on, so that it does not stop again at once. On a small disk a tenth.
const ROOM_BYTES: u64 = 64 << 20;

impl MachineRunner {
    async fn running(&self, uid: &str) -> Result<Machine, MachineError> {
        match self.observe(uid).await? {
            FoundMachine::Running(machine) => Ok(machine),
            _ => Err(MachineError::NotRunning { uid: uid.to_owned() }),
        }
    }

    /// Whether the pool has room again.
    async fn has_room(&self) -> Result<bool, MachineError> {
        let usage = self.volumes.usage().await?;
        Ok(usage.free_bytes >= ROOM_BYTES.min(usage.capacity_bytes / 10))
    }

    /// Adds a volume to the record, or takes it out, so that it is given back with the others.
    fn record_volume(&self, uid: &str, volume: &str, is_used: bool) -> Result<(), MachineError> {
        let paths = self.paths(uid);
        let Some(mut record) = record(uid, &paths)? else { return Ok(()) };
        record.volumes.retain(|used| used != volume);
        if is_used {
            record.volumes.push(volume.to_owned());
        }
        records::write(&paths.folder, &record).map_err(failed(uid, "write", &paths.folder))
    }

    async fn attach(&self, machine: &Machine, volume: &str, serial: &str) -> Result<(), MachineError> {
        let uid = &machine.record().uid;
        let volumes = [volume.to_owned()];
        let _claim = self.claims.take(uid, &volumes)?;
        exclusive::refuse_shared_volumes(&self.config, self.volumes.as_ref(), uid, &volumes).await?;
        // Recorded first: every disk that QEMU has open must be in the record, whatever happens in between.
        self.record_volume(uid, volume, true)?;
        let owner = self.user(machine.record()).map(|user| Owner { uid: user.uid, gid: user.gid });
        let source = self.volumes.source(volume, owner).await?;
        let disk = HotDisk { id: hot_id(volume), source, serial: serial.to_owned() };
        Ok(machine.monitor().await?.attach_disk(&disk).await?)
    }

    async fn detach(&self, machine: &Machine, id: &str, volume: &str) -> Result<(), MachineError> {
        machine.monitor().await?.detach_disk(id).await?;
        if self.config.first_uid.is_some() {
            self.volumes.release(volume).await?;
        }
        self.record_volume(&machine.record().uid, volume, false)
    }
}

/// The monitor's name of a volume that is attached to a running guest.
fn hot_id(volume: &str) -> String {
    format!("hot-{}", pool::serial(volume))
}

/// The volume of a disk: those of the command line are numbered as in the record, to which others are only appended.
fn volume_of(id: &str, volumes: &[String]) -> Option<String> {
    let by_number = id.strip_prefix("disk").and_then(|number| volumes.get(number.parse::<usize>().ok()?));
    by_number.or_else(|| volumes.iter().find(|volume| hot_id(volume) == id)).cloned()
}

fn run(machine: &Machine) -> Run {
    Run { id: machine.run_id(), started_at: machine.shim().record().started_at }
}

#[async_trait]
impl Guests for MachineRunner {
    async fn observe(&self, uid: &str) -> Result<ObservedMachine, MachineError> {
        Ok(match self.observe(uid).await? {
            FoundMachine::Running(machine) => ObservedMachine::Running(run(&machine)),
            FoundMachine::Orphaned(reason) => ObservedMachine::Orphaned(reason),
            FoundMachine::Ended(exit) => ObservedMachine::Ended(exit),
            FoundMachine::Absent => ObservedMachine::Absent,
        })
    }

    async fn state(&self, uid: &str) -> Result<GuestState, MachineError> {
        self.running(uid).await?.state().await
    }

    async fn start(&self, config: &MachineConfig, nic: Option<Nic>) -> Result<Run, MachineError> {
        Ok(run(&MachineRunner::start(self, config, nic).await?))
    }

    async fn stop(&self, uid: &str, grace: Duration) -> Result<Option<Stopped>, MachineError> {
        MachineRunner::stop(self, uid, grace).await
    }

    async fn end_orphan(&self, uid: &str) -> Result<(), MachineError> {
        MachineRunner::end_orphan(self, uid).await?;
        self.release(uid).await
    }

    async fn resume(&self, uid: &str) -> Result<bool, MachineError> {
        let machine = self.running(uid).await?;
        let monitor = machine.monitor().await?;
        let can_go_on = match monitor.state().await? {
            GuestState::DiskError { is_full: true } => self.has_room().await?,
            state => state.can_resume(),
        };
        if can_go_on {
            monitor.resume().await?;
        }
        Ok(can_go_on)
    }

    async fn pause(&self, uid: &str) -> Result<(), MachineError> {
        Ok(self.running(uid).await?.monitor().await?.pause().await?)
    }

    async fn reset(&self, uid: &str) -> Result<(), MachineError> {
        Ok(self.running(uid).await?.monitor().await?.reset().await?)
    }

    async fn remove(&self, uid: &str) -> Result<(), MachineError> {
        MachineRunner::remove(self, uid).await
    }

    async fn list(&self) -> Result<BTreeSet<String>, MachineError> {
        MachineRunner::list(self)
    }

    async fn mark_deleted(&self, uid: &str) -> Result<(), MachineError> {
        let folder = self.paths(uid).folder;
        records::mark_deleted(&folder).map_err(failed(uid, "mark as deleted", &folder))
    }

    async fn is_deleted(&self, uid: &str) -> Result<bool, MachineError> {
        let folder = self.paths(uid).folder;
        records::is_deleted(&folder).map_err(failed(uid, "look at", &folder))
    }

    async fn disks(&self, uid: &str) -> Result<Vec<GuestDisk>, MachineError> {
        let machine = self.running(uid).await?;
        let volumes = &machine.record().volumes;
        let disks = machine.monitor().await?.disks().await?;
        // The seed has no volume.
        let of_volume = |disk: ActualDisk| {
            let volume = volume_of(&disk.id, volumes)?;
            Some(GuestDisk { id: disk.id, volume, size_bytes: disk.size_bytes, is_hot: disk.is_hot })
        };
        Ok(disks.into_iter().filter_map(of_volume).collect())
    }

    async fn change_disk(&self, uid: &str, change: &Change) -> Result<(), MachineError> {
        let machine = self.running(uid).await?;
        match change {
            Change::Grow { id, volume, size_bytes } => {
                machine.monitor().await?.grow_disk(id, *size_bytes).await?;
                self.volumes.grown(volume, *size_bytes).await?;
                Ok(())
            }
            Change::Detach { id, volume } => self.detach(&machine, id, volume).await,
            Change::Attach { volume, serial } => self.attach(&machine, volume, serial).await,
        }
    }

    async fn changes(&self, uid: &str) -> Result<BoxStream<'static, GuestChange>, MachineError> {
        let machine = self.running(uid).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = until_ended(&machine) => {
                    // The receiver may be dropped.
                    let _ = sender.send(GuestChange::Ended).await;
                }
                () = pass_on_events(&machine, &sender) => {}
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn console(&self, uid: &str, replay_bytes: usize) -> Result<BoxDuplex, MachineError> {
        Ok(Box::new(self.running(uid).await?.console(replay_bytes).await?))
    }

    async fn serial_log(&self, log: Log<'_>, tail_bytes: u64) -> Result<Option<Vec<u8>>, MachineError> {
        let (uid, folder) = match log {
            Log::Machine(uid) => (uid, self.shim_dir(uid)),
            Log::Previous(uid) => (uid, last_logs(&self.config.state_dir).join(uid)),
        };
        super::error::check_uid(uid)?;
        let path = folder.clone();
        let read = tokio::task::spawn_blocking(move || tail(&path, tail_bytes)).await;
        let read = read.map_err(std::io::Error::other).and_then(|read| read);
        if_present(read).map_err(failed(uid, "read the serial log in", &folder))
    }

    async fn offers(&self, accelerator: AcceleratorKind) -> Result<Offers, MachineError> {
        MachineRunner::offers(self, accelerator).await
    }
}

/// Returns when the hypervisor has ended or has lost its shim. A shim that does not answer is asked again.
async fn until_ended(machine: &Machine) {
    loop {
        match machine.shim().wait().await {
            Ok(_) | Err(ClientError::Lost { .. }) => return,
            Err(error) => tracing::debug!(machine = machine.record().uid, %error, "cannot wait for a machine's end"),
        }
        tokio::time::sleep(REACH_AGAIN).await;
    }
}

async fn pass_on_events(machine: &Machine, sender: &mpsc::Sender<GuestChange>) {
    loop {
        if let Ok(monitor) = machine.monitor().await {
            let mut events = monitor.events();
            pass_on(&mut events, sender).await;
            // Events without a listener are not known.
            if sender.send(GuestChange::StateChanged).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(REACH_AGAIN).await;
    }
}

async fn pass_on(events: &mut Events, sender: &mpsc::Sender<GuestChange>) {
    while let Some(event) = events.next().await {
        let change = match event {
            GuestEvent::Reset => GuestChange::Reset,
            GuestEvent::StateChanged | GuestEvent::Missed => GuestChange::StateChanged,
        };
        if sender.send(change).await.is_err() {
            return;
        }
    }
}
