//! The report of a simulated host: its size, its images.

use std::io;

use async_trait::async_trait;
use evroc_api::infra::Capacity;
use evroc_api::units::{Size, Unit};
use evroc_node::agent::host::{Measure, MeasureError, Measured};
use evroc_node::image::{ImageError, ImageFacts, Images, Scan};
use evroc_node::pool::Base;
use tokio::sync::watch;

use super::{Behaviour, HostSize};

/// The disk image that every host has.
pub const IMAGE: &str = "tiny.1-0.1";

/// A host of a given size.
pub(super) struct Hardware {
    pub size: HostSize,
    pub behaviour: watch::Receiver<Behaviour>,
}

#[async_trait]
impl Measure for Hardware {
    async fn measure(&self) -> Result<Measured, MeasureError> {
        if self.behaviour.borrow().is_unready {
            return Err(MeasureError::Machine(io::Error::other("planted by a test")));
        }
        let capacity = Capacity {
            cpus: self.size.cpus,
            memory_bytes: self.size.memory_gb << 30,
            disk_bytes: self.size.disk_gb << 30,
        };
        Ok(Measured { allocatable: capacity.clone(), capacity })
    }
}

/// The one image that every simulated host has.
pub(super) struct OneImage;

fn facts() -> ImageFacts {
    ImageFacts {
        name: IMAGE.into(),
        os_image: "tiny".into(),
        os_version: "1".into(),
        version: "0.1".into(),
        os_arch: "amd64".into(),
        default_size: Some(Size { amount: 2, unit: Unit::GB }),
        sha256: "00".repeat(32),
        virtual_size_bytes: 1 << 30,
    }
}

/// The same as something to clone from.
pub(super) fn base() -> Base {
    let ImageFacts { name: image, sha256, virtual_size_bytes, .. } = facts();
    Base { image, sha256, virtual_size_bytes }
}

impl Images for OneImage {
    fn scan(&self) -> Result<Scan, ImageError> {
        Ok(Scan { images: vec![facts()], ..Scan::default() })
    }
}
