//! Plans the next steps for a disk: pure.

use evroc_api::conditions::Verdict;
use evroc_api::infra::VolumeSpec;
use evroc_api::units::{Size, Unit};
use kube::ResourceExt;

use super::observe::Observed;
use super::place;
use super::size::size;

/// The smallest disk, in bytes: room for test disks.
const SMALLEST_BYTES: u64 = 1 << 20;
/// The largest disk, in bytes: the definition's limit.
const LARGEST_BYTES: u64 = 10 << 40;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the object until its volume is deleted.
    AddFinalizer,
    /// Let the object be removed.
    RemoveFinalizer,
    /// Make the volume.
    CreateVolume(VolumeSpec),
    /// Delete the volume.
    DeleteVolume,
}

/// Returns the steps that the observed state requires; for a disk that cannot be created, the reason.
pub fn plan(observed: &Observed) -> Vec<Step> {
    if observed.disk.metadata.deletion_timestamp.is_some() {
        return match &observed.volume {
            _ if !observed.users.is_empty() => vec![],
            Some(volume) if volume.metadata.deletion_timestamp.is_none() => vec![Step::DeleteVolume],
            Some(_) => vec![],
            None => vec![Step::RemoveFinalizer],
        };
    }
    let mut steps = vec![];
    if !observed.disk.finalizers().iter().any(|f| f == evroc_api::COMPUTE_FINALIZER) {
        steps.push(Step::AddFinalizer);
    }
    if observed.volume.is_none()
        && let Ok(spec) = wanted_volume(observed)
    {
        steps.push(Step::CreateVolume(spec));
    }
    steps
}

/// The volume that the disk asks for, or the reason why there can be none.
pub fn wanted_volume(observed: &Observed) -> Result<VolumeSpec, Verdict> {
    let spec = &observed.disk.spec;
    let image = spec.disk_image.as_ref().map(|i| i.disk_image_ref.name.clone());
    if let (Some(name), None) = (&image, &observed.image) {
        return Err(Verdict::no(
            "DiskImageNotFound",
            format!(
                "spec.diskImage.diskImageRef.name: expected the name of a DiskImage ({}), found \"{name}\"",
                observed.image_names.join(", ")
            ),
        ));
    }
    let size = wanted_size(observed);
    let bytes = size.and_then(Size::bytes).unwrap_or(0);
    if !(SMALLEST_BYTES..=LARGEST_BYTES).contains(&bytes) {
        let found = size.map_or("none".into(), |s| s.to_string());
        return Err(Verdict::no(
            "DiskSizeInvalid",
            format!("spec.diskSize: expected a size from 1 MB to 10 TB, found {found}"),
        ));
    }
    if let Some(image) = &observed.image
        && bytes < image.spec.minimum_size_bytes
    {
        let needed = image.spec.minimum_size_bytes.div_ceil(Unit::MB.bytes());
        return Err(Verdict::no(
            "DiskTooSmall",
            format!(
                "Disk is too small to contain disk image: spec.diskSize: expected at least {needed} MB for {}, found {}",
                image.name_any(),
                size.map_or(String::new(), |s| s.to_string())
            ),
        ));
    }
    if let Some(refused) = &observed.refused {
        return Err(Verdict::no("VolumeRefused", format!("the disk's volume was refused: {refused}")));
    }
    let image_sha256 = observed.image.as_ref().map(|image| image.spec.sha256.clone());
    Ok(VolumeSpec { host_name: place::host(observed, bytes)?, image, image_sha256, size_bytes: bytes })
}

/// The size that the user gave, or the image's.
pub fn wanted_size(observed: &Observed) -> Option<Size> {
    size(&observed.disk, observed.image.as_ref())
}
