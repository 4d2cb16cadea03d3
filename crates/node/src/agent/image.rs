//! DiskImage: the images that this host has, told to the API.

use evroc_api::compute::{DiskImage, DiskImageSpec, DiskImageStatus};
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::units::{Size, Unit};
use evroc_controller::{Context, Result, chain, create_or_adopt, get, write_status};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::image::{ImageFacts, ImageStore};

/// Tells of every image in the host's folder; those that are known are brought up to date.
pub async fn publish(context: &Context, images: &ImageStore) -> Result<()> {
    let found = match images.scan() {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(error = chain(&error), "cannot list disk images");
            return Ok(());
        }
    };
    let api = Api::<DiskImage>::all(context.client.clone());
    for facts in found {
        let name = facts.name.clone();
        let wanted = DiskImage::new(&name, spec(facts));
        let current = match get(&api, &name).await? {
            Some(current) if current.spec == wanted.spec => current,
            Some(_) => {
                let patch = Patch::Merge(json!({"spec": wanted.spec}));
                api.patch(&name, &PatchParams::default(), &patch)
                    .await
                    .map_err(evroc_controller::api_error("update disk image"))?
            }
            None => {
                create_or_adopt(&api, &wanted).await?;
                let Some(current) = get(&api, &name).await? else { continue };
                current
            }
        };
        let mut status: DiskImageStatus = current.status.clone().unwrap_or_default();
        conditions::set(
            &mut status.conditions,
            READY,
            &Verdict::yes("Ready", "disks can be made from it"),
            current.metadata.generation,
            context.now(),
        );
        write_status(&api, &current, &status).await?;
    }
    Ok(())
}

fn spec(facts: ImageFacts) -> DiskImageSpec {
    let megabytes = facts.virtual_size_bytes.div_ceil(Unit::MB.bytes());
    let minimum = Size { amount: i64::try_from(megabytes).unwrap_or(i64::MAX), unit: Unit::MB };
    DiskImageSpec {
        default_size: facts.default_size.unwrap_or(minimum),
        minimum_size_bytes: facts.virtual_size_bytes,
        os_arch: facts.os_arch,
        os_image: facts.os_image,
        os_version: facts.os_version,
        version: facts.version,
        sha256: facts.sha256,
    }
}
