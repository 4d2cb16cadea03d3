//! The size of a disk.

use evroc_api::compute::{Disk, DiskImage};
use evroc_api::units::Size;

/// The size of a disk that is made from an image, or blank.
pub(super) fn size(disk: &Disk, image: Option<&DiskImage>) -> Option<Size> {
    disk.spec.disk_size.or(image.map(|image| image.spec.default_size))
}
