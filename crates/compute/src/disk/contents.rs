//! The image and the size of a disk, checked. Pure.

use evroc_api::compute::{Disk, DiskImage};
use evroc_api::conditions::Verdict;
use evroc_api::units::{Size, Unit};
use kube::ResourceExt;

/// The smallest disk, in bytes: room for test disks.
const SMALLEST_BYTES: u64 = 1 << 20;
/// The largest disk, in bytes: the definition's limit.
const LARGEST_BYTES: u64 = 10 << 40;

/// The image and the size of a disk's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The image's name; none for a blank disk.
    pub image: Option<String>,
    /// The SHA-256 of its bytes.
    pub image_sha256: Option<String>,
    /// The size, as the user wrote it or as the image has it.
    pub size: Size,
    /// The same in bytes.
    pub bytes: u64,
}

/// Returns image and size of a disk, or the reason why it cannot be made. `image` is the one that it names, `image_names` are those that
/// exist.
pub(crate) fn contents(disk: &Disk, image: Option<&DiskImage>, image_names: &[String]) -> Result<Contents, Verdict> {
    let name = disk.spec.disk_image.as_ref().map(|image| image.disk_image_ref.name.clone());
    if let (Some(name), None) = (&name, image) {
        return Err(Verdict::no(
            "DiskImageNotFound",
            format!(
                "spec.diskImage.diskImageRef.name: expected the name of a DiskImage ({}), found \"{name}\"",
                image_names.join(", ")
            ),
        ));
    }
    let size = disk.spec.disk_size.or(image.map(|image| image.spec.default_size));
    let bytes = size.and_then(Size::bytes).filter(|bytes| (SMALLEST_BYTES..=LARGEST_BYTES).contains(bytes));
    let Some((size, bytes)) = size.zip(bytes) else {
        let found = size.map_or("none".into(), |s| s.to_string());
        return Err(Verdict::no(
            "DiskSizeInvalid",
            format!("spec.diskSize: expected a size from 1 MB to 10 TB, found {found}"),
        ));
    };
    if let Some(image) = image.filter(|image| bytes < image.spec.minimum_size_bytes) {
        let needed = image.spec.minimum_size_bytes.div_ceil(Unit::MB.bytes());
        return Err(Verdict::no(
            "DiskTooSmall",
            format!(
                "Disk is too small to contain disk image: spec.diskSize: expected at least {needed} MB for {}, found {size}",
                image.name_any()
            ),
        ));
    }
    Ok(Contents { image: name, image_sha256: image.map(|image| image.spec.sha256.clone()), size, bytes })
}
