//! Stories over the control side: the real store, API server, rights and controllers in this process, with simulated hosts.
//!
//! Neither root nor a network is needed, and nothing is started. What a host really does with a Machine or a Replica is the
//! matter of the crates' own tests and of the tour.

mod access;
mod binding;
mod churn;
mod deletions;
mod disks;
mod failures;
mod groups;
mod guests;
mod openapi;
mod placement;
mod placement_groups;
mod services;
mod storage;
mod storms;
mod zones;

use evroc_testkit::Platform;
use evroc_testkit::objects::{HasConditions, disk, virtual_machine};

/// The end of every story: nothing was run twice, and the controllers have come to rest.
async fn all_is_well(platform: &Platform) {
    platform.at_rest().await;
    for host in platform.hosts() {
        assert_eq!(host.violations(), Vec::<String>::new(), "on host {}", host.name());
    }
}

/// A disk from the image and a virtual machine on it, of one name, that runs.
async fn running_vm(platform: &Platform, name: &str) -> evroc_api::compute::VirtualMachine {
    platform.create(&disk(name, evroc_testkit::IMAGE)).await;
    platform.create(&virtual_machine(name, &[name])).await;
    platform.until(name, "Ready", HasConditions::is_ready).await
}

/// The refusal of a request: code and message.
fn refusal<T: std::fmt::Debug>(outcome: kube::Result<T>) -> (u16, String) {
    match outcome {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// The machines of a virtual machine; there is never more than one.
async fn machines_of(platform: &Platform, vm: &str) -> Vec<evroc_api::infra::Machine> {
    let machines = platform.api::<evroc_api::infra::Machine>().list(&kube::api::ListParams::default()).await;
    let machines = machines.expect("a list").items.into_iter();
    machines.filter(|machine| machine.spec.virtual_machine.as_deref() == Some(vm)).collect()
}
