//! Typed clients without a kubeconfig.

use std::fmt::Debug;

use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind whose objects a test can reach by name alone: those of the client's resource group, and those of the whole cloud.
pub trait ApiOf: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static {
    /// Its client.
    fn api(client: Client) -> Api<Self>;
}

/// The namespace of objects, chosen by the kind's scope.
pub trait Place<K> {
    /// The client for the kind.
    fn place(client: Client) -> Api<K>;
}

impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>> Place<K> for NamespaceResourceScope {
    fn place(client: Client) -> Api<K> {
        Api::default_namespaced(client)
    }
}

impl<K: Resource<DynamicType = (), Scope = ClusterResourceScope>> Place<K> for ClusterResourceScope {
    fn place(client: Client) -> Api<K> {
        Api::all(client)
    }
}

impl<K> ApiOf for K
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
    K::Scope: Place<K>,
{
    fn api(client: Client) -> Api<Self> {
        <K::Scope as Place<K>>::place(client)
    }
}

/// An object as a reader of a failed test wants it: without the noise of metadata.
pub fn describe<K: Serialize>(object: &K) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        metadata.retain(|key, _| ["name", "deletionTimestamp", "finalizers", "generation"].contains(&key.as_str()));
    }
    serde_json::to_string_pretty(&value).unwrap_or_default()
}
