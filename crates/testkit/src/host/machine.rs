//! Machines: Pending, Starting, Running, and then the guest; one status write each.

use evroc_api::NODE_FINALIZER;
use evroc_api::compute::GUEST_READY;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Machine, MachinePhase, MachineStatus};
use evroc_controller::{Result, remove_finalizer, write_status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Agent, Book, RunningMachine};

impl Agent {
    pub(super) async fn step_machine(&self, machine: &Machine) -> Result<()> {
        let uid = machine.uid().unwrap_or_default();
        let phase = machine.status.as_ref().and_then(|s| s.phase);
        if machine.metadata.deletion_timestamp.is_some() {
            return self.end_machine(machine, &uid, phase).await;
        }
        let running = self.book().machines.contains_key(&uid);
        if running && self.book().powered_off.remove(&virtual_machine(machine)) {
            self.book().machines.remove(&uid);
            let verdict = Verdict::no("PoweredOff", "the guest powered itself off");
            return self.report_machine(machine, MachinePhase::Stopped, &verdict).await;
        }
        match phase {
            None => {
                let verdict = Verdict::no("Pending", "the host is preparing the VM");
                self.report_machine(machine, MachinePhase::Pending, &verdict).await
            }
            Some(MachinePhase::Pending) => match &self.behaviour.start_failure {
                Some(why) => {
                    let verdict = Verdict::no("CannotStart", why.clone());
                    self.report_machine(machine, MachinePhase::Failed, &verdict).await
                }
                None => {
                    let verdict = Verdict::no("Starting", "the hypervisor is being started");
                    self.report_machine(machine, MachinePhase::Starting, &verdict).await
                }
            },
            Some(MachinePhase::Starting | MachinePhase::Running) if self.behaviour.machines_never_run => Ok(()),
            Some(MachinePhase::Starting | MachinePhase::Running) => {
                if !running {
                    self.book().begin(machine, &uid, self.size.memory_gb << 30);
                }
                let verdict = Verdict::yes("Running", "the hypervisor runs the guest");
                self.report_machine(machine, MachinePhase::Running, &verdict).await
            }
            Some(
                MachinePhase::Paused
                | MachinePhase::Stopping
                | MachinePhase::Stopped
                | MachinePhase::Failed
                | MachinePhase::Unknown,
            ) => Ok(()),
        }
    }

    async fn end_machine(&self, machine: &Machine, uid: &str, phase: Option<MachinePhase>) -> Result<()> {
        if phase == Some(MachinePhase::Running) {
            let verdict = Verdict::no("Stopping", "the guest was asked to power off");
            return self.report_machine(machine, MachinePhase::Stopping, &verdict).await;
        }
        if self.behaviour.machines_never_end && self.book().machines.contains_key(uid) {
            return Ok(());
        }
        self.book().machines.remove(uid);
        remove_finalizer(&self.api(machine), machine, NODE_FINALIZER).await
    }

    async fn report_machine(&self, machine: &Machine, phase: MachinePhase, ready: &Verdict) -> Result<()> {
        let before = machine.status.as_ref().and_then(|s| s.phase);
        let now = self.context.now();
        let mut status: MachineStatus = machine.status.clone().unwrap_or_default();
        status.observed_epoch = machine.spec.epoch;
        status.phase = Some(phase);
        conditions::set(&mut status.conditions, READY, ready, machine.metadata.generation, now);
        let guest = match phase {
            MachinePhase::Running if before != Some(MachinePhase::Running) => {
                status.started_at = Some(Time(now));
                status.accelerator = Some("tcg".into());
                Verdict::no("Booting", "the guest's ssh server does not answer yet")
            }
            MachinePhase::Running if self.behaviour.guests_never_ready => {
                Verdict::no("Booting", "the guest's ssh server does not answer yet")
            }
            MachinePhase::Running => Verdict::yes("SshAnswers", "the guest's ssh server answers"),
            _ => Verdict::no("NotRunning", "the hypervisor does not run the guest"),
        };
        conditions::set(&mut status.conditions, GUEST_READY, &guest, None, now);
        write_status(&self.api(machine), machine, &status).await.map(|_| ())
    }
}

/// The name of the virtual machine that a machine runs: what stories call it by.
fn virtual_machine(machine: &Machine) -> String {
    machine.spec.virtual_machine.clone().unwrap_or_else(|| machine.name_any())
}

impl Book {
    /// Records a start, and checks that it shares nothing exclusive with running machines.
    fn begin(&mut self, machine: &Machine, uid: &str, memory_bytes: u64) {
        let namespace = machine.namespace().unwrap_or_default();
        let new = RunningMachine {
            name: virtual_machine(machine),
            volumes: machine.spec.volumes.iter().map(|v| format!("{namespace}/{}", v.name)).collect(),
            address: format!("{}/{}", machine.spec.network.vpc_uid, machine.spec.network.address),
            memory_bytes: machine.spec.memory_bytes,
        };
        let used: u64 = self.machines.values().map(|m| m.memory_bytes).sum();
        if used + new.memory_bytes > memory_bytes {
            self.violations.push(format!("{} does not fit: {used} of {memory_bytes} bytes are in use", new.name));
        }
        for other in self.machines.values() {
            if let Some(volume) = new.volumes.iter().find(|v| other.volumes.contains(v)) {
                self.violations.push(format!("{} and {} both have volume {volume}", other.name, new.name));
            }
            if other.address == new.address {
                self.violations.push(format!("{} and {} both have address {}", other.name, new.name, new.address));
            }
        }
        self.starts.push(format!("Machine/{}", new.name));
        self.machines.insert(uid.into(), new);
    }
}
