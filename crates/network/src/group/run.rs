//! The effects: watch, and carry out the plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::GROUP_FINALIZER;
use evroc_api::iam::ResourceGroup;
use evroc_api::networking::{
    CidrBlock, DEFAULT_NETWORK, DEFAULT_SUBNET_CIDR, NameRef, Subnet, SubnetSpec, VirtualPrivateCloud,
    VirtualPrivateCloudSpec,
};
use evroc_controller::{
    Change, Kind, Queue, Result, add_finalizer, chain, create_or_adopt, delete_if_present, get, owned_by,
    remove_finalizer, report_status,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::observe::Observed;
use super::plan::{Step, plan};
use super::status::status;
use crate::context::Network;

/// The label on a namespace that names its resource group.
const GROUP_LABEL: &str = "iam.evroclabs.net/resource-group";
/// Groups that are reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// The pause before the group's data outside the API is removed again, after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

pub(crate) async fn run(context: Arc<Network>) {
    let queue =
        Queue::new(&context.groups)
            // Also a namespace that belongs to something else: it may go and make way.
            .on(&context.namespaces, |change: &Change<Namespace>| {
                change.both().last().map(|namespace| ObjectRef::new(&namespace.name_any())).into_iter().collect()
            })
            // Their number and whether they have a status, not what is in it.
            .on(
                &context.vpcs,
                |change: &Change<VirtualPrivateCloud>| {
                    if change.differs(|vpc| vpc.status.is_some()) { group_of(change) } else { vec![] }
                },
            )
            .on(&context.subnets, |change: &Change<Subnet>| {
                if change.differs(|subnet| subnet.status.is_some()) { group_of(change) } else { vec![] }
            });
    queue.run(CONCURRENCY, reconcile, context).await;
}

/// The group of an object in its namespace. The namespace of a group has its name in this version; where that changes, this is the one
/// place that maps back.
fn group_of<K: Kind>(change: &Change<K>) -> Vec<ObjectRef<ResourceGroup>> {
    let namespace = change.both().last().and_then(ResourceExt::namespace);
    namespace.map(|namespace| ObjectRef::new(&namespace)).into_iter().collect()
}

async fn reconcile(group: Arc<ResourceGroup>, context: Arc<Network>) -> Result<Action> {
    let groups = Api::<ResourceGroup>::all(context.base.client.clone());
    let Some(group) = get(&groups, &group.name_any()).await? else { return Ok(Action::await_change()) };
    let namespaces = Api::<Namespace>::all(context.base.client.clone());
    let name = group.name_any();
    let in_group = Some(name.as_str());
    let (vpc, subnet) = (context.vpcs.get(in_group, DEFAULT_NETWORK), context.subnets.get(in_group, DEFAULT_NETWORK));
    let observed = Observed {
        namespace: get(&namespaces, &name).await?,
        has_network: vpc.is_some() && subnet.is_some(),
        is_network_reported: vpc.is_some_and(|vpc| vpc.status.is_some())
            && subnet.is_some_and(|subnet| subnet.status.is_some()),
        group,
    };
    if let Some(status) = status(&observed, context.base.now()) {
        // Events need a namespace, which a group is outside of: nothing is a failure here.
        report_status(&context.base, &groups, &observed.group, &status, |_| false).await?;
    }
    for step in plan(&observed) {
        match step {
            Step::AddFinalizer => add_finalizer(&groups, &observed.group, GROUP_FINALIZER).await?,
            Step::CreateNamespace => create_or_adopt(&namespaces, &namespace_of(&observed.group)).await?,
            Step::EnsureNetwork => ensure_network(&context, &name).await?,
            Step::DeleteNamespace => {
                if let Some(namespace) = &observed.namespace {
                    delete_if_present(&namespaces, namespace).await?;
                }
            }
            Step::ForgetAndRemoveFinalizer => {
                if let Err(error) = context.forget.forget(&name, &observed.group.uid().unwrap_or_default()).await {
                    tracing::warn!(
                        group = name,
                        error = chain(&error),
                        "cannot remove what a group has outside the API"
                    );
                    return Ok(Action::requeue(AFTER_FAILURE));
                }
                remove_finalizer(&groups, &observed.group, GROUP_FINALIZER).await?;
            }
        }
    }
    Ok(Action::await_change())
}

fn namespace_of(group: &ResourceGroup) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(group.name_any());
    namespace.metadata.labels = Some(BTreeMap::from([(GROUP_LABEL.to_owned(), group.name_any())]));
    namespace.metadata.owner_references = owned_by(group);
    namespace
}

async fn ensure_network(context: &Network, namespace: &str) -> Result<()> {
    let vpcs = Api::<VirtualPrivateCloud>::namespaced(context.base.client.clone(), namespace);
    let subnets = Api::<Subnet>::namespaced(context.base.client.clone(), namespace);
    if context.vpcs.get(Some(namespace), DEFAULT_NETWORK).is_none() {
        create_or_adopt(&vpcs, &VirtualPrivateCloud::new(DEFAULT_NETWORK, VirtualPrivateCloudSpec {})).await?;
    }
    if context.subnets.get(Some(namespace), DEFAULT_NETWORK).is_none() {
        let spec = SubnetSpec {
            vpc_ref: NameRef { name: DEFAULT_NETWORK.into() },
            ipv4_cidr_block: CidrBlock { block: DEFAULT_SUBNET_CIDR.into() },
        };
        create_or_adopt(&subnets, &Subnet::new(DEFAULT_NETWORK, spec)).await?;
    }
    Ok(())
}
