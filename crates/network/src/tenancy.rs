//! ResourceGroup -> Namespace, VirtualPrivateCloud, Subnet.
//!
//! The namespace has the group's name. What is missing is made again, what is there is left alone. A group that is deleted
//! takes its namespace along and waits for it: the namespace empties itself, then both are gone.
//! A namespace that belongs to something else is never taken over: that of a former group of the same name is waited for,
//! one that is no group's is an error.
//! Who writes what: this controller writes ResourceGroup.status, the namespace, the default VPC and subnet and their status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::VirtualMachine;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::iam::{ResourceGroup, ResourceGroupStatus};
use evroc_api::networking::{
    CidrBlock, DEFAULT_NETWORK, DEFAULT_SUBNET_CIDR, NameRef, Subnet, SubnetSpec, SubnetStatus, VirtualPrivateCloud,
    VirtualPrivateCloudSpec, VirtualPrivateCloudStatus,
};
use evroc_api::{GROUP_FINALIZER, deletion};
use evroc_controller::{
    Context, Result, add_finalizer, api_error, controller, create_or_adopt, delete_if_present, drive, get, owned_by,
    remove_finalizer, retry, write_status,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};

/// The label on a namespace that names its resource group.
pub const GROUP_LABEL: &str = "iam.evroclabs.net/resource-group";
/// The reason of a group whose name is that of a namespace that is no group's.
const NAMESPACE_TAKEN: &str = "NamespaceTaken";
/// The reason of what is gone but for somebody's finalizer.
const DELETING: &str = "Deleting";
/// Addresses of the default subnet that virtual machines can have: 256 without network, gateway, system and broadcast.
const USABLE_ADDRESSES: i64 = 252;

pub(crate) async fn run(context: Context) {
    let client = context.client.clone();
    let all = watcher::Config::default;
    let stream = controller(Api::<ResourceGroup>::all(client.clone()), all())
        .owns(Api::<Namespace>::all(client.clone()), all())
        .watches(Api::<VirtualPrivateCloud>::all(client.clone()), all(), |vpc| group_of(&vpc))
        .watches(Api::<Subnet>::all(client.clone()), all(), |subnet| group_of(&subnet))
        .watches(Api::<VirtualMachine>::all(client), all(), |vm| group_of(&vm))
        .run(reconcile, retry, Arc::new(context));
    drive(stream.boxed()).await;
}

/// The namespace of a group has its name in this version; where that changes, this is the one place that maps back.
fn group_of(object: &impl Resource<DynamicType = ()>) -> Option<ObjectRef<ResourceGroup>> {
    object.meta().namespace.as_deref().map(ObjectRef::new)
}

async fn reconcile(group: Arc<ResourceGroup>, context: Arc<Context>) -> Result<Action> {
    let groups = Api::<ResourceGroup>::all(context.client.clone());
    let Some(group) = get(&groups, &group.name_any()).await? else { return Ok(Action::await_change()) };
    let is_deleted = group.metadata.deletion_timestamp.is_some();
    if !is_deleted && !group.finalizers().iter().any(|f| f == GROUP_FINALIZER) {
        add_finalizer(&groups, &group, GROUP_FINALIZER).await?;
        return Ok(Action::requeue(Duration::ZERO));
    }
    let name = group.name_any();
    let namespaces = Api::<Namespace>::all(context.client.clone());
    let verdict = match (get(&namespaces, &name).await?, is_deleted) {
        (None, false) => {
            create_or_adopt(&namespaces, &namespace_of(&group)).await?;
            return Ok(Action::requeue(Duration::ZERO));
        }
        (Some(namespace), is_deleted) if owner(&namespace) == group.uid().as_deref() => {
            if is_deleted {
                delete_if_present(&namespaces, &namespace).await?;
            }
            if is_deleted || namespace.metadata.deletion_timestamp.is_some() {
                terminating(&namespace)
            } else {
                ensure_network(&context, &name).await?;
                Verdict::yes("Ready", "the resource group can be used")
            }
        }
        (_, true) => match deletion::waits_for(&group.metadata, &[GROUP_FINALIZER], &[]) {
            Some(whom) if !group.finalizers().iter().any(|it| it == GROUP_FINALIZER) => {
                Verdict::no(DELETING, format!("the resource group is empty and is being deleted: {whom}"))
            }
            _ => {
                remove_finalizer(&groups, &group, GROUP_FINALIZER).await?;
                return Ok(Action::await_change());
            }
        },
        (Some(namespace), false) if owner(&namespace).is_some() => terminating(&namespace),
        (Some(_), false) => Verdict::no(
            NAMESPACE_TAKEN,
            format!(
                "namespace \"{name}\" exists and belongs to no resource group: choose another name for the resource group"
            ),
        ),
    };
    let namespace = (verdict.reason != NAMESPACE_TAKEN && verdict.reason != DELETING).then_some(name);
    let mut status = ResourceGroupStatus { namespace, ..group.status.clone().unwrap_or_default() };
    conditions::set(&mut status.conditions, READY, &verdict, group.metadata.generation, context.now());
    write_status(&groups, &group, &status).await?;
    Ok(if verdict.status == "True" { Action::await_change() } else { Action::requeue(Duration::from_secs(1)) })
}

/// The uid of the resource group, this or a former one, that a namespace belongs to.
fn owner(namespace: &Namespace) -> Option<&str> {
    let groups = namespace.owner_references().iter().find(|owner| owner.kind == ResourceGroup::kind(&()));
    groups.map(|owner| owner.uid.as_str())
}

/// In the words of the namespace itself, which name what it waits for.
fn terminating(namespace: &Namespace) -> Verdict {
    let mut message = format!("waits until namespace \"{}\" has emptied itself", namespace.name_any());
    let conditions = namespace.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let told = ["NamespaceContentRemaining", "NamespaceFinalizersRemaining"];
    let remaining = conditions.filter(|c| c.status == "True" && told.contains(&c.type_.as_str()));
    let remaining: Vec<&str> = remaining.filter_map(|c| c.message.as_deref()).collect();
    if !remaining.is_empty() {
        message.push_str(&format!(": {}", remaining.join("; ")));
    }
    Verdict::no("NamespaceTerminating", message)
}

fn namespace_of(group: &ResourceGroup) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(group.name_any());
    namespace.metadata.labels = Some(BTreeMap::from([(GROUP_LABEL.to_owned(), group.name_any())]));
    namespace.metadata.owner_references = owned_by(group);
    namespace
}

async fn ensure_network(context: &Context, namespace: &str) -> Result<()> {
    let vpcs = Api::<VirtualPrivateCloud>::namespaced(context.client.clone(), namespace);
    let subnets = Api::<Subnet>::namespaced(context.client.clone(), namespace);
    create_missing(&vpcs, &VirtualPrivateCloud::new(DEFAULT_NETWORK, VirtualPrivateCloudSpec {})).await?;
    let spec = SubnetSpec {
        vpc_ref: NameRef { name: DEFAULT_NETWORK.into() },
        ipv4_cidr_block: CidrBlock { block: DEFAULT_SUBNET_CIDR.into() },
    };
    create_missing(&subnets, &Subnet::new(DEFAULT_NETWORK, spec)).await?;
    if let Some(vpc) = get(&vpcs, DEFAULT_NETWORK).await? {
        write_status(&vpcs, &vpc, &vpc_status(&vpc, context.now())).await?;
    }
    if let Some(subnet) = get(&subnets, DEFAULT_NETWORK).await? {
        let vms = Api::<VirtualMachine>::namespaced(context.client.clone(), namespace);
        let vms = vms.list(&ListParams::default()).await.map_err(api_error("list virtual machines"))?.items;
        write_status(&subnets, &subnet, &subnet_status(&subnet, &vms, context.now())).await?;
    }
    Ok(())
}

async fn create_missing<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match get(api, &object.name_any()).await? {
        Some(_) => Ok(()),
        None => create_or_adopt(api, object).await,
    }
}

fn vpc_status(vpc: &VirtualPrivateCloud, now: Timestamp) -> VirtualPrivateCloudStatus {
    let mut status = vpc.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, READY, &usable(&vpc.metadata), vpc.metadata.generation, now);
    status
}

fn subnet_status(subnet: &Subnet, vms: &[VirtualMachine], now: Timestamp) -> SubnetStatus {
    let mut status = subnet.status.clone().unwrap_or_default();
    let has_address = |vm: &&VirtualMachine| {
        vm.status.as_ref().and_then(|s| s.networking.as_ref()?.private_ipv4_address.as_ref()).is_some()
    };
    let used = i64::try_from(vms.iter().filter(has_address).count()).unwrap_or(i64::MAX);
    status.using_ipv4_address_count = Some(used);
    status.available_ipv4_address_count = Some(USABLE_ADDRESSES - used);
    conditions::set(&mut status.conditions, READY, &usable(&subnet.metadata), subnet.metadata.generation, now);
    status
}

/// Until it is gone a deleted network is used by those that are in it; then it is made anew.
fn usable(metadata: &ObjectMeta) -> Verdict {
    match deletion::waits_for(metadata, &[], &[]) {
        Some(whom) => Verdict::no(DELETING, format!("it is being deleted and then made anew: {whom}")),
        None => Verdict::yes("Ready", "virtual machines can use it"),
    }
}
