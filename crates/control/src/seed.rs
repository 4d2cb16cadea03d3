//! The seed of every cloud: the catalogue, organisation `local`, resource group `demo`. Existing objects are left alone.

use evroc_api::compute::{DiskStorageClass, DiskStorageClassSpec, VMVirtualResources, profiles};
use evroc_api::iam::{Organization, OrganizationSpec, ResourceGroup, ResourceGroupSpec};
use evroc_controller::{Result, create_or_adopt, get};
use kube::api::Api;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The organisation of a fresh installation.
const ORGANIZATION: &str = "local";
/// Its resource group.
const RESOURCE_GROUP: &str = "demo";

/// Creates missing objects.
pub async fn ensure(client: Client) -> Result<()> {
    let class = DiskStorageClassSpec {
        description: "Survives node failure and can be detached and reused. Recommended for most use cases.".into(),
    };
    missing(&client, &DiskStorageClass::new("persistent", class)).await?;
    for (name, spec) in profiles() {
        missing(&client, &VMVirtualResources::new(&name, spec)).await?;
    }
    // A group that its operator deleted does not come back: only an installation without any organisation is fresh.
    let organizations = Api::<Organization>::all(client.clone());
    let all = organizations
        .list(&kube::api::ListParams::default())
        .await
        .map_err(evroc_controller::api_error("list organizations"))?;
    if all.items.is_empty() {
        let group = ResourceGroupSpec { organization: ORGANIZATION.into(), display_name: None };
        missing(&client, &ResourceGroup::new(RESOURCE_GROUP, group)).await?;
        missing(&client, &Organization::new(ORGANIZATION, OrganizationSpec { display_name: None })).await?;
    }
    Ok(())
}

async fn missing<K>(client: &Client, object: &K) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::all(client.clone());
    match get(&api, &object.name_any()).await? {
        Some(_) => Ok(()),
        None => create_or_adopt(&api, object).await,
    }
}
