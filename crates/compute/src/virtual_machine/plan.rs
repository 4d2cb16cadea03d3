//! What is to be done for a virtual machine: pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use evroc_api::COMPUTE_FINALIZER;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{MachineNetwork, MachinePhase, MachineSpec, MachineVolume};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::block::host_or_block;
use super::observe::{Observed, address};

/// The pause before a guest that ended is started again; doubled with each restart up to [`LONGEST_PAUSE`]. Too low keeps a host
/// busy with a guest that cannot run; too high keeps its user waiting.
const PAUSE: Duration = Duration::from_secs(10);
/// Too low keeps a host busy with guests that will never run; too high delays a guest whose fault was put right.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The pause for a guest that ran for longer than [`LONG_LIFE`]: it is most likely rebooting or was shut down from within.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// How long a guest must have run for its end not to look like a failure to start.
const LONG_LIFE: Duration = Duration::from_secs(600);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Hold the virtual machine so that it ends before its object does.
    AddFinalizer,
    /// Let the virtual machine go.
    RemoveFinalizer,
    /// Give it its private address.
    AssignAddress(Ipv4Addr),
    /// Run it.
    CreateMachine(Box<MachineSpec>),
    /// Stop it.
    DeleteMachine,
    /// Look again later.
    LookAgain(Duration),
}

/// What the observed state asks for.
pub fn plan(observed: &Observed, now: Timestamp) -> Vec<Step> {
    let vm = &observed.vm;
    let deleted = vm.metadata.deletion_timestamp.is_some();
    let machine = observed.machine.as_ref();
    if deleted || !vm.spec.running {
        return match machine {
            Some(machine) if machine.metadata.deletion_timestamp.is_none() => vec![Step::DeleteMachine],
            Some(_) => vec![],
            None if deleted => vec![Step::RemoveFinalizer],
            None => hold(observed),
        };
    }
    let mut steps = hold(observed);
    if let Some(machine) = machine {
        if machine.metadata.deletion_timestamp.is_none() && ended(observed) {
            match restart_pause(observed, now) {
                Duration::ZERO => steps.push(Step::DeleteMachine),
                pause => steps.push(Step::LookAgain(pause)),
            }
        }
        return steps;
    }
    let Ok((host, need)) = host_or_block(observed) else { return steps };
    match address(vm) {
        None => steps.extend(free_address(observed).map(Step::AssignAddress)),
        Some(address) => steps.push(Step::CreateMachine(Box::new(MachineSpec {
            host_name: host,
            epoch: now.as_millisecond(),
            virtual_machine_uid: vm.uid().unwrap_or_default(),
            vcpus: need.vcpus,
            memory_bytes: need.memory_bytes,
            volumes: volumes(observed),
            network: network(observed, address),
            hostname: vm.name_any(),
            authorized_keys: keys(observed),
            user_data: vm.spec.os_settings.as_ref().and_then(|s| s.cloud_init_user_data.clone()),
            machine_type: vm.status.as_ref().and_then(|s| s.hardware.as_ref()).map(|h| h.machine_type.clone()),
            cpu_model: vm.status.as_ref().and_then(|s| s.hardware.as_ref()).map(|h| h.cpu_model.clone()),
            restarts: restarts(observed).unwrap_or_default(),
            ..MachineSpec::default()
        }))),
    }
    steps
}

fn hold(observed: &Observed) -> Vec<Step> {
    let held = observed.vm.finalizers().iter().any(|f| f == COMPUTE_FINALIZER);
    if held { vec![] } else { vec![Step::AddFinalizer] }
}

/// Whether the guest ended by itself or could not be started: `running: true` means that it is started again. A host that cannot
/// find out says `Unknown`, which is no end: the guest may well be running.
fn ended(observed: &Observed) -> bool {
    let phase = observed.machine.as_ref().and_then(|m| m.status.as_ref()?.phase);
    matches!(phase, Some(MachinePhase::Stopped | MachinePhase::Failed))
}

/// How long to wait before the next start.
fn restart_pause(observed: &Observed, now: Timestamp) -> Duration {
    let Some((since, _)) = end_and_life(observed) else { return Duration::ZERO };
    let doublings = restarts(observed).unwrap_or_default().saturating_sub(1).clamp(0, 10).unsigned_abs();
    let pause = if has_lived_long(observed) { SHORT_PAUSE } else { (PAUSE * (1 << doublings)).min(LONGEST_PAUSE) };
    let waited = Duration::from_secs(now.as_second().saturating_sub(since.as_second()).max(0).unsigned_abs());
    pause.saturating_sub(waited)
}

/// When the machine stopped being ready, and how long it had been running by then.
fn end_and_life(observed: &Observed) -> Option<(Timestamp, Duration)> {
    let status = observed.machine.as_ref()?.status.as_ref()?;
    let since = conditions::get(&status.conditions, READY)?.last_transition_time.0;
    let lived = status.started_at.as_ref().map_or(0, |started| since.as_second() - started.0.as_second());
    Some((since, Duration::from_secs(lived.max(0).unsigned_abs())))
}

fn has_lived_long(observed: &Observed) -> bool {
    end_and_life(observed).is_some_and(|(_, lived)| lived > LONG_LIFE)
}

/// How many times the guest ended by itself, the machine's own end included. While there is no machine the last count stands, until
/// the virtual machine is switched off.
pub(super) fn restarts(observed: &Observed) -> Option<i32> {
    if !observed.vm.spec.running {
        return None;
    }
    let Some(machine) = &observed.machine else { return observed.vm.status.as_ref()?.restarts };
    match ended(observed) {
        true if has_lived_long(observed) => Some(1),
        true => Some(machine.spec.restarts.saturating_add(1)),
        false => Some(machine.spec.restarts),
    }
}

/// The lowest address that no other virtual machine of the group has. Gateway .1 and system .2 are the platform's.
pub(super) fn free_address(observed: &Observed) -> Option<Ipv4Addr> {
    let (network, length) = subnet(observed)?;
    let first = u32::from(network);
    let last = first + (1u32 << (32 - u32::from(length))) - 2;
    (first + 3..=last).map(Ipv4Addr::from).find(|address| !observed.taken_addresses.contains(address))
}

fn subnet(observed: &Observed) -> Option<(Ipv4Addr, u8)> {
    let (network, length) = observed.subnet.as_ref()?.spec.ipv4_cidr_block.block.split_once('/')?;
    Some((network.parse().ok()?, length.parse().ok().filter(|length| (8..=30).contains(length))?))
}

fn network(observed: &Observed, address: Ipv4Addr) -> MachineNetwork {
    let (network, prefix_length) = subnet(observed).unwrap_or((Ipv4Addr::UNSPECIFIED, 24));
    MachineNetwork {
        vpc_uid: observed.vpc.as_ref().and_then(|v| v.uid()).unwrap_or_default(),
        address: address.to_string(),
        prefix_length,
        gateway: Ipv4Addr::from(u32::from(network) + 1).to_string(),
        mac: link_address(&observed.vm.uid().unwrap_or_default()),
    }
}

/// A locally administered link address that follows from the virtual machine's uid, so that it outlives every restart.
fn link_address(uid: &str) -> String {
    let hex: String = uid.chars().filter(char::is_ascii_hexdigit).chain("0000000000".chars()).take(10).collect();
    let pairs: Vec<&str> = (0..5).map(|i| &hex[2 * i..2 * i + 2]).collect();
    format!("0a:{}", pairs.join(":"))
}

/// The boot volume first: it is `/dev/vda`.
fn volumes(observed: &Observed) -> Vec<MachineVolume> {
    let boot = observed.vm.spec.boot_disk().map(|d| d.name.clone()).unwrap_or_default();
    let mut names: Vec<&str> = observed.disks.iter().map(|d| d.name.as_str()).collect();
    names.sort_by_key(|name| *name != boot);
    names
        .into_iter()
        .map(|name| MachineVolume { name: name.into(), boot: name == boot, ..MachineVolume::default() })
        .collect()
}

fn keys(observed: &Observed) -> Vec<String> {
    let ssh = observed.vm.spec.os_settings.as_ref().and_then(|s| s.ssh.as_ref());
    ssh.map(|s| s.authorized_keys.iter().map(|k| k.value.clone()).collect()).unwrap_or_default()
}
