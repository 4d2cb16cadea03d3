//! Stories of machines on a host in memory: what is reported, and what is never done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evroc_api::compute::GUEST_READY;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Machine, MachinePhase, MachineStatus};
use evroc_controller::Result;
use evroc_vmm::{GuestState, Offers};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use tokio::sync::watch;

use super::step::Next;
use super::{Changes, Volumes, Work};
use crate::agent::host::{Accelerator, HostConditions, Topic};
use crate::drain_flag::DrainFlag;
use crate::machine::memory::MemoryGuests;
use crate::machine::owner::OwnedMachines;
use crate::machine::{AcceleratorKind, VolumeUse};
use crate::net::memory::MemoryNetwork;

struct Host {
    _state: tempfile::TempDir,
    guests: MemoryGuests,
    draining: DrainFlag,
    conditions: HostConditions,
    work: Arc<Work>,
    changes: Changes,
    _accelerator: watch::Sender<Option<Accelerator>>,
}

impl Host {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let (guests, draining, conditions) = (MemoryGuests::default(), DrainFlag::default(), HostConditions::default());
        let found = Accelerator { kind: Some(AcceleratorKind::Tcg), reason: String::new(), offers: Offers::default() };
        let (sender, accelerator) = watch::channel(Some(found));
        let owned = OwnedMachines::new(Arc::new(guests.clone()), draining.clone());
        let network = Arc::new(MemoryNetwork::default());
        let (work, changes) =
            Work::new("host".into(), state.path(), owned, network, accelerator, conditions.clone()).unwrap();
        Self { _state: state, guests, draining, conditions, work: Arc::new(work), changes, _accelerator: sender }
    }

    /// Reconciles once and writes the resulting status.
    async fn step(&self, machine: &mut Machine) -> Next {
        let outcome = self.work.step(machine, &OneVolume, Timestamp::UNIX_EPOCH).await.unwrap();
        if let Some(status) = outcome.status {
            machine.status = Some(status);
        }
        outcome.next
    }

    /// Reconciles a machine until its guest runs.
    async fn started(&self, uid: &str) -> Machine {
        let mut machine = machine(uid);
        self.step(&mut machine).await;
        self.step(&mut machine).await;
        assert_eq!(phase(&machine), Some(MachinePhase::Running), "{:?}", machine.status);
        machine
    }
}

struct OneVolume;

#[async_trait]
impl Volumes for OneVolume {
    async fn uses(&self) -> Result<std::result::Result<Vec<VolumeUse>, String>> {
        Ok(Ok(vec![VolumeUse { uid: "volume".into(), disk_uid: None, is_boot: true, size_bytes: Some(1 << 20) }]))
    }
}

fn machine(uid: &str) -> Machine {
    let mut machine = Machine::new(uid, evroc_api::infra::MachineSpec::default());
    machine.metadata.uid = Some(uid.into());
    machine.metadata.namespace = Some("demo".into());
    machine.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into()]);
    machine.spec.virtual_machine_uid = format!("vm-of-{uid}");
    // Each has an address of its own.
    let last = uid.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)) / 2 + 3;
    machine.spec.network = serde_json::from_value(json!({
        "vpcUid": "vpc", "address": format!("10.0.0.{last}"), "prefixLength": 24, "gateway": "10.0.0.1", "mac": format!("0a:00:00:00:00:{last:02x}"),
    }))
    .unwrap();
    machine
}

fn phase(machine: &Machine) -> Option<MachinePhase> {
    machine.status.as_ref().and_then(|status| status.phase)
}

fn reason<'a>(machine: &'a Machine, kind: &str) -> &'a str {
    let status: &MachineStatus = machine.status.as_ref().unwrap();
    conditions::get(&status.conditions, kind).map_or("", |condition| &condition.reason)
}

#[tokio::test]
async fn a_guest_that_cannot_be_seen_lives_on_and_is_seen_again() {
    let host = Host::new();
    let mut machine = host.started("m").await;
    host.guests.set(|faults| faults.look = Some("Too many open files (os error 24)".into()));
    let before = machine.status.clone();
    assert!(matches!(host.step(&mut machine).await, Next::Again(_)));
    assert_eq!(machine.status, before, "a single failure is no news");
    for _ in 0..100 {
        let Next::Again(pause) = host.step(&mut machine).await else { panic!("it is looked at again") };
        assert!(pause <= Duration::from_secs(30), "{pause:?}");
    }
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Unknown), "CannotObserve"));
    assert_eq!(reason(&machine, GUEST_READY), "Unknown");
    assert_eq!((host.guests.running(), host.guests.ends()), (vec!["m".to_owned()], vec![]));

    host.guests.set(|faults| faults.look = None);
    host.step(&mut machine).await;
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Running), "Running"));
    assert_eq!(host.guests.starts().len(), 1);
}

#[tokio::test]
async fn a_start_that_cannot_look_is_no_failure() {
    let host = Host::new();
    let mut machine = machine("m");
    host.guests.set(|faults| faults.look = Some("Input/output error (os error 5)".into()));
    for _ in 0..5 {
        host.step(&mut machine).await;
    }
    assert_eq!(phase(&machine), Some(MachinePhase::Unknown));
    host.guests
        .set(|faults| *faults = crate::machine::memory::Faults { start: Some("no".into()), ..Default::default() });
    host.step(&mut machine).await;
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Failed), "CannotStart"));
}

#[tokio::test]
async fn a_hypervisor_that_does_not_answer_is_left_running() {
    let host = Host::new();
    let mut machine = host.started("m").await;
    host.guests.set(|faults| faults.state = Some("query-status: no answer within 5s".into()));
    for _ in 0..10 {
        host.step(&mut machine).await;
    }
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Unknown), "HypervisorDoesNotAnswer"));
    assert_eq!(host.guests.running(), ["m"]);
}

#[tokio::test]
async fn a_paused_guest_is_shown_and_goes_on_when_it_can() {
    let host = Host::new();
    let mut machine = host.started("m").await;
    host.guests.set_state("m", GuestState::DiskError { is_full: true });
    let Next::Again(pause) = host.step(&mut machine).await else { panic!("it is tried again") };
    assert!(pause <= Duration::from_secs(5));
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Paused), "HostDiskFull"));
    assert_eq!(reason(&machine, GUEST_READY), "Paused");
    host.guests.set_state("m", GuestState::DiskError { is_full: false });
    host.step(&mut machine).await;
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Running), "Running"));
}

#[tokio::test]
async fn only_the_record_of_an_end_is_an_end() {
    let host = Host::new();
    let mut machine = host.started("m").await;
    host.guests.power_off("m");
    host.step(&mut machine).await;
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Stopped), "PoweredOff"));
    let mut machine = host.started("n").await;
    host.guests.crash("n");
    host.step(&mut machine).await;
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Failed), "HypervisorEnded"));
    let mut machine = host.started("p").await;
    host.guests.terminate("p");
    host.step(&mut machine).await;
    assert_eq!((phase(&machine), reason(&machine, READY)), (Some(MachinePhase::Failed), "HypervisorEnded"));
}

#[tokio::test]
async fn a_guest_that_lost_its_shim_is_ended_by_the_reconciliation_and_starts_again() {
    let host = Host::new();
    let mut machine = host.started("m").await;
    host.guests.kill_shim("m");
    assert_eq!(host.guests.running(), ["m"]);
    assert_eq!(host.step(&mut machine).await, Next::Again(Duration::ZERO));
    assert_eq!(host.guests.ends(), ["m"]);
    host.step(&mut machine).await;
    let status = machine.status.as_ref().unwrap();
    assert_eq!((status.phase, status.restarts), (Some(MachinePhase::Running), 1));
    assert_eq!(host.guests.starts().len(), 2);
}

#[tokio::test]
async fn a_change_wakes_its_own_machine_only() {
    let mut host = Host::new();
    let (_m, _n) = (host.started("m").await, host.started("n").await);
    host.guests.reboot("n");
    let rung = host.changes.0.recv().await.unwrap();
    assert_eq!(rung.name, "n");
}

#[tokio::test]
async fn a_deleted_machine_is_stopped_and_leaves_nothing() {
    let host = Host::new();
    let mut machine = host.started("m").await;
    machine.metadata.deletion_timestamp = serde_json::from_value(json!("1970-01-01T00:00:00Z")).unwrap();
    host.step(&mut machine).await;
    assert_eq!(phase(&machine), Some(MachinePhase::Stopping));
    assert_eq!(host.step(&mut machine).await, Next::RemoveFinalizer);
    assert_eq!((host.guests.running(), host.guests.violations()), (vec![], vec![]));
}

#[tokio::test]
async fn an_unlisted_workload_runs_on_until_it_was_deleted_or_an_operator_orders_its_end() {
    let host = Host::new();
    for uid in ["listed", "newer-than-the-store", "half-deleted", "named"] {
        host.started(uid).await;
    }
    use crate::machine::Guests;
    host.guests.mark_deleted("half-deleted").await.unwrap();
    let set = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect::<BTreeSet<_>>();
    let known = host.guests.list().await.unwrap();
    host.work.sweep(&known, &set(&["listed"]), &set(&["named"])).await;
    assert_eq!(host.guests.running(), ["listed", "newer-than-the-store"]);
    let verdict = &host.conditions.verdicts()[&Topic::NoOrphans];
    assert_eq!(verdict.status, "False");
    assert!(verdict.message.contains("newer-than-the-store"), "{}", verdict.message);
    let ports: Vec<_> = host.work.network.ports().await.into_values().flatten().collect();
    assert_eq!(ports, ["listed", "newer-than-the-store"]);

    host.work.sweep(&host.guests.list().await.unwrap(), &set(&["listed", "newer-than-the-store"]), &set(&[])).await;
    assert_eq!(host.conditions.verdicts()[&Topic::NoOrphans].status, "True");
}

#[tokio::test]
async fn a_drain_leaves_nothing_running_and_nothing_starts_after_it() {
    let host = Host::new();
    host.started("m").await;
    // A reconciliation that looked before the drain began requests its start after it.
    let work = host.work.clone();
    host.draining.set();
    assert_eq!(work.stop_all(Duration::from_secs(1)).await, (1, 0));
    let late = machine("late");
    let outcome = work.start(&late, "late", None, &OneVolume, Timestamp::UNIX_EPOCH).await.unwrap();
    assert!(matches!(outcome.next, Next::Again(_)));
    assert_eq!(host.guests.running(), Vec::<String>::new());
    assert_eq!(late.name_any(), "late");
}
