//! Starts a machine: what it waits for, and the report when it cannot be started.

use std::net::Ipv4Addr;
use std::time::Duration;

use evroc_api::compute::GUEST_READY;
use evroc_api::conditions::{self, Verdict};
use evroc_api::infra::{Machine, MachinePhase};
use evroc_controller::{Result, chain};
use ipnet::Ipv4Net;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::step::{Next, Outcome, TRY_AGAIN, status};
use super::{Volumes, Work};
use crate::agent::host::Accelerator;
use crate::machine::guests::ObservedMachine;
use crate::machine::owner::{Answer, Order, OrderError};
use crate::machine::{AcceleratorKind, MachineConfig, Nic, VolumeUse};
use crate::metrics;
use crate::net::network::{PortSpec, TapState, VpcSpec};
use crate::owner::AskError;
use crate::seed::SeedInput;

/// How often a machine looks whether the probe has come to an end.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

impl Work {
    /// Starts the machine, or reports why it cannot be. `reason` says why it is started again.
    pub(super) async fn start(
        &self,
        machine: &Machine,
        uid: &str,
        reason: Option<&str>,
        volumes: &dyn Volumes,
        now: Timestamp,
    ) -> Result<Outcome> {
        let waits = |reason: &str, message: String, pause| {
            let verdict = Verdict::no(reason, message);
            Ok(Outcome::report(status(machine, MachinePhase::Pending, &verdict, now), Next::Again(pause)))
        };
        let probed = self.accelerator.borrow().clone();
        let accelerator = match probed {
            Some(Accelerator { kind: Some(kind), .. }) => kind,
            Some(found) => {
                return waits("CannotRunGuests", format!("host {}: {}", self.host, found.reason), PROBE_PAUSE);
            }
            None => {
                let message = "a probe guest is being booted to find out how guests run on this host";
                return waits("Probing", message.into(), PROBE_PAUSE);
            }
        };
        let volumes = match volumes.uses().await? {
            Ok(volumes) => volumes,
            Err(message) => return waits("WaitingForVolume", message, TRY_AGAIN),
        };
        let config = self.config(machine, uid, volumes, accelerator);
        if let Err(error) = port(machine, uid) {
            return Ok(self.failed(machine, "CannotStart", &error, now));
        }
        let network = async {
            // Its tap is absent before the start; it is made next.
            let _ = self.ensure_port(machine, uid).await?;
            let tap = self.network.open_tap(&machine.spec.network.vpc_uid, uid).await;
            tap.map_err(|error| chain(&error))
        };
        let tap = match network.await {
            Ok(tap) => tap,
            Err(error) => return waits("WaitingForNetwork", error, TRY_AGAIN),
        };
        let nic = Nic { tap, mac: machine.spec.network.mac.clone(), mtu: None };
        let starting = self.owned.ask(uid, Order::Start(Box::new(config), Some(nic)));
        let run = match metrics::measured(metrics::Work::Guest, starting).await {
            Ok(Answer::Runs(run)) => run,
            Ok(_) | Err(AskError::Refused(_)) => return Ok(Outcome::next(Next::Again(TRY_AGAIN))),
            Err(error) => return Ok(self.not_started(machine, uid, &error, now).await),
        };
        if let Some(reason) = reason {
            tracing::info!(machine = machine.name_any(), uid, reason, "machine was started again");
        }
        // An absent one is fine.
        let _ = std::fs::remove_file(self.stopped_with_host.join(uid));
        self.watch(machine, uid, &run).await;
        let message = match reason {
            Some(reason) => format!("the hypervisor runs the guest; it was started again: {reason}"),
            None => "the hypervisor runs the guest".into(),
        };
        let mut status = status(machine, MachinePhase::Running, &Verdict::yes("Running", message), now);
        status.started_at = Some(Time(now));
        status.accelerator = Some(accelerator.name().to_owned());
        status.restarts += i32::from(reason.is_some());
        let booting = Verdict::no("Booting", "the guest's ssh server does not answer yet");
        conditions::set(&mut status.conditions, GUEST_READY, &booting, None, now);
        Ok(Outcome::report(status, Next::Again(TRY_AGAIN)))
    }

    /// A start that failed is the end of a machine only if nothing of it runs: a hypervisor that is slow to answer does.
    async fn not_started(&self, machine: &Machine, uid: &str, error: &OrderError, now: Timestamp) -> Outcome {
        match self.guests().observe(uid).await {
            Ok(ObservedMachine::Absent | ObservedMachine::Ended(_)) => {
                self.failed(machine, "CannotStart", &chain(error), now)
            }
            Ok(ObservedMachine::Running(_) | ObservedMachine::Orphaned(_)) => {
                tracing::warn!(machine = machine.name_any(), uid, error = chain(error), "a start failed half way");
                Outcome::next(Next::Again(Duration::ZERO))
            }
            Err(look) => self.cannot_look(machine, uid, &look, now),
        }
    }

    pub(super) fn config(
        &self,
        machine: &Machine,
        uid: &str,
        volumes: Vec<VolumeUse>,
        accelerator: AcceleratorKind,
    ) -> MachineConfig {
        let spec = &machine.spec;
        MachineConfig {
            uid: uid.to_owned(),
            name: spec.virtual_machine.clone().unwrap_or_else(|| machine.name_any()),
            epoch: spec.epoch,
            vcpus: spec.vcpus,
            memory_bytes: spec.memory_bytes,
            volumes,
            seed: SeedInput {
                instance_id: spec.virtual_machine_uid.clone(),
                hostname: spec.hostname.clone(),
                authorized_keys: spec.authorized_keys.clone(),
                user_data: spec.user_data.clone(),
            },
            accelerator,
            machine_type: spec.machine_type.clone(),
            cpu_model: spec.cpu_model.clone(),
        }
    }

    pub(super) async fn ensure_port(&self, machine: &Machine, uid: &str) -> std::result::Result<TapState, String> {
        let (vpc, port) = port(machine, uid)?;
        self.network.ensure_port(&vpc, &port).await.map_err(|error| chain(&error))
    }
}

/// Returns the machine's place in its VPC, or names the invalid field.
fn port(machine: &Machine, uid: &str) -> std::result::Result<(VpcSpec, PortSpec), String> {
    let wanted = &machine.spec.network;
    let parse = |field: &str, text: &str| {
        text.parse::<Ipv4Addr>().map_err(|_| format!("spec.network.{field}: {text:?} is not an address"))
    };
    let (address, gateway) = (parse("address", &wanted.address)?, parse("gateway", &wanted.gateway)?);
    let subnet = Ipv4Net::new(gateway, wanted.prefix_length)
        .map_err(|error| format!("spec.network.prefixLength: {error}"))?
        .trunc();
    let mac = wanted.mac.parse().map_err(|error| format!("spec.network.mac: {error}"))?;
    let vpc = VpcSpec { uid: wanted.vpc_uid.clone(), subnet, gateway };
    let port = PortSpec { machine_uid: uid.to_owned(), mac, address, hostname: machine.spec.hostname.clone() };
    Ok((vpc, port))
}
