//! Host: reports to the API the resources of this machine and its faults.

mod conditions;
mod measure;
pub mod tools;

use std::sync::Arc;
use std::time::Duration;

use evroc_api::conditions::{READY, Verdict, set};
use evroc_api::infra::{Host, HostSpec, HostStatus};
use evroc_controller::{Context, Error, Result, api_error, chain, get, write_status};
use kube::api::{Api, Patch, PatchParams};
use tokio::sync::watch;

use crate::machine::AcceleratorKind;

pub use self::conditions::{HostConditions, Topic};
pub use self::measure::{Measure, MeasureError, Measured, ThisHost};

/// How often the host measures itself. Disk and memory change all the time, so the reported numbers are rounded.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The condition that says whether guests run on the processor itself.
const HARDWARE_ACCELERATION: &str = "HardwareAcceleration";

/// The accelerator that is reported for a host that cannot run guests at all.
pub const NO_ACCELERATOR: &str = "none";

/// The result of the accelerator's probe.
#[derive(Clone, Debug)]
pub struct Accelerator {
    /// The accelerator that guests use; `None` if the host cannot run guests.
    pub kind: Option<AcceleratorKind>,
    /// The reason, for people.
    pub reason: String,
    /// The hardware that guests can have with it.
    pub offers: evroc_vmm::Offers,
}

/// Keeps the Host object true until the process ends.
pub async fn run(
    context: Context,
    name: String,
    zone: String,
    measure: Arc<dyn Measure>,
    mut accelerator: watch::Receiver<Option<Accelerator>>,
    conditions: HostConditions,
) {
    let mut reports = conditions.changes();
    loop {
        let probed = accelerator.borrow_and_update().clone();
        reports.mark_unchanged();
        let wait = match report(&context, &name, &zone, &*measure, probed.as_ref(), &conditions).await {
            Ok(()) => LOOK_AGAIN,
            Err(Error::Changed(_)) => Duration::from_millis(50),
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot report the host, will be tried again");
                Duration::from_secs(1)
            }
        };
        // Without the senders only the pause counts.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = accelerator.changed() => {}
            Ok(()) = reports.changed() => {}
        }
    }
}

async fn report(
    context: &Context,
    name: &str,
    zone: &str,
    measure: &dyn Measure,
    accelerator: Option<&Accelerator>,
    conditions: &HostConditions,
) -> Result<()> {
    let hosts = Api::<Host>::all(context.client.clone());
    let host = match get(&hosts, name).await? {
        Some(host) => host,
        None => {
            // An apply names its object, a create does not: a host may write itself and no other.
            let host = Host::new(name, HostSpec { zone: Some(zone.to_owned()), ..HostSpec::default() });
            let manager = PatchParams::apply("evroc-node");
            hosts.patch(name, &manager, &Patch::Apply(&host)).await.map_err(api_error("create the host"))?
        }
    };
    let mut status: HostStatus = host.status.clone().unwrap_or_default();
    let verdict = match measure.measure().await {
        Ok(Measured { capacity, allocatable }) => {
            (status.capacity, status.allocatable) = (Some(capacity), Some(allocatable));
            Verdict::yes("Ready", "the host's agent is at work")
        }
        Err(error) => Verdict::no("CannotMeasure", chain(&error)),
    };
    status.accelerator = accelerator.map(|a| a.kind.map_or(NO_ACCELERATOR, AcceleratorKind::name).to_owned());
    let offers = accelerator.map(|a| a.offers.clone()).unwrap_or_default();
    (status.machine_types, status.cpu_models) = (offers.machine_types, offers.cpu_models);
    let now = context.now();
    set(&mut status.conditions, READY, &verdict, None, now);
    let accelerated = match accelerator {
        None => Verdict::unknown("Probing", "a guest is being booted to find out"),
        Some(found) => match found.kind {
            Some(AcceleratorKind::Kvm) => Verdict::yes("Kvm", found.reason.clone()),
            Some(AcceleratorKind::Tcg) => Verdict::no("Emulated", found.reason.clone()),
            None => Verdict::no("CannotRunGuests", found.reason.clone()),
        },
    };
    set(&mut status.conditions, HARDWARE_ACCELERATION, &accelerated, None, now);
    conditions.write(&mut status.conditions, now);
    write_status(&hosts, &host, &status).await.map(|_| ())
}
