//! Computes the status of a disk: pure.

use evroc_api::compute::{DiskStatus, DiskUse, DiskUseKind, Placement, zone};
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::units::Size;
use evroc_api::{COMPUTE_FINALIZER, deletion};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::contents::{Contents, contents};
use super::observe::Observed;
use crate::place::unknown_zone;
use crate::reasons::PENDING;

/// The status that the observed state amounts to.
pub fn status(observed: &Observed, now: Timestamp) -> DiskStatus {
    let mut status = observed.disk.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, READY, &verdict(observed), observed.disk.metadata.generation, now);
    status.disk_size = disk_size(observed).or(status.disk_size);
    let wanted = zone(observed.disk.spec.placement.as_ref()).map(str::to_owned);
    status.placement = observed.zone.clone().or(wanted).map(|zone| Placement { zone: Some(zone) });
    let uses = observed.users.iter().map(|vm| DiskUse {
        use_kind: DiskUseKind::Permanent,
        vm: vm.name_any(),
        attachment: None,
    });
    status.disk_usage = uses.collect();
    status
}

/// The size that the host reports, as the user wrote it where that is the same. Before the disk has a host, the size that it will have.
fn disk_size(observed: &Observed) -> Option<Size> {
    let wanted = usable(observed).ok().map(|contents| contents.size);
    let Some(volume) = &observed.volume else { return wanted };
    let bytes = volume.status.as_ref()?.size_bytes?;
    let wanted = wanted.filter(|wanted| wanted.bytes() == Some(bytes));
    Some(wanted.unwrap_or_else(|| Size::of_bytes(bytes)))
}

/// Returns image and size of the disk, or the reason why no virtual machine can use it.
fn usable(observed: &Observed) -> Result<Contents, Verdict> {
    let contents = contents(&observed.disk, observed.image.as_ref(), &observed.image_names)?;
    if let Some(refused) = &observed.refused {
        return Err(Verdict::no("VolumeRefused", format!("the disk's volume was refused: {refused}")));
    }
    match unknown_zone(zone(observed.disk.spec.placement.as_ref()), &observed.zones) {
        Some(why) => Err(why),
        None => Ok(contents),
    }
}

/// Whether the reason why a disk is not ready is a failure and not a step on its way.
pub fn is_failure(reason: &str) -> bool {
    const STEPS: [&str; 6] = ["DiskImageDownloading", "Provisioning", PENDING, "ImportScheduled", "InUse", "Deleting"];
    !STEPS.contains(&reason)
}

fn verdict(observed: &Observed) -> Verdict {
    if observed.disk.metadata.deletion_timestamp.is_some() {
        return match observed.users.first() {
            Some(vm) => Verdict::no(
                "InUse",
                format!("the disk is deleted as soon as VirtualMachine \"{}\" no longer uses it", vm.name_any()),
            ),
            None => Verdict::no(
                "Deleting",
                match &observed.volume {
                    Some(volume) => {
                        format!("the disk's data is being deleted: waits for host {}", volume.spec.host_name)
                    }
                    None => match deletion::waits_for(&observed.disk.metadata, &[COMPUTE_FINALIZER], &[]) {
                        Some(blocker) => format!("the disk is being deleted: {blocker}"),
                        None => "the disk is being deleted".to_owned(),
                    },
                },
            ),
        };
    }
    let Some(volume) = &observed.volume else {
        return match usable(observed) {
            Err(why) => why,
            Ok(_) => Verdict::yes(
                "Ready",
                "the disk can be used by a VM; it gets a host with the first one that runs with it",
            ),
        };
    };
    if volume.metadata.deletion_timestamp.is_some() {
        let host = &volume.spec.host_name;
        return Verdict::no("Provisioning", format!("the disk, still empty, gets another host: waits for host {host}"));
    }
    let reported = volume.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY));
    match reported {
        Some(ready) if ready.status == "True" => Verdict::yes("Ready", "the disk can be used by a VM"),
        Some(not_ready) => Verdict::no(&not_ready.reason, not_ready.message.clone()),
        None => Verdict::no("Provisioning", format!("the disk is being made on host {}", volume.spec.host_name)),
    }
}
