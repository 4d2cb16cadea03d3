//! The context of this crate's controllers: the API, and informers with their indexes.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::conditions;
use evroc_api::infra::{Host, Machine, Replica};
use evroc_api::run::{Revision, Service};
use evroc_controller::{Context, Index, Informer, Informers, Refusals};
use evroc_placement::Book;
use k8s_openapi::api::core::v1::ResourceQuota;

use crate::image::Images;
use crate::reasons::{ACTIVE, UNSCHEDULABLE};

/// The operator's settings for the whole cloud.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Services are answered under `svc-<id>.<domain>`.
    pub domain: String,
    /// The port of the HTTPS gateway; 443 does not show in addresses.
    pub https_port: u16,
    /// How long a revision without requests keeps its last replica. Too low starts containers for every visitor; too
    /// high keeps memory without use.
    pub scale_to_zero_after: Duration,
}

/// The context of this crate's controllers.
#[derive(Clone)]
pub struct RunContext {
    /// API and clock.
    pub base: Context,
    /// The operator's choices.
    pub settings: Settings,
    /// The registry that images are resolved in.
    pub images: Arc<dyn Images>,
    /// The informers of the process.
    pub informers: Informers,
    /// The promises made on each host.
    pub book: Book,
}

/// The key in an index of what waits for room on a host.
pub(crate) const WAITING: &str = "";

/// The context of services and revisions.
pub(crate) struct Run {
    /// API and clock.
    pub base: Context,
    pub settings: Settings,
    pub images: Arc<dyn Images>,
    /// The promises made on each host.
    pub book: Book,
    /// The API's permanent refusals.
    pub refusals: Refusals,
    pub services: Informer<Service>,
    pub revisions: Informer<Revision>,
    pub replicas: Informer<Replica>,
    pub machines: Informer<Machine>,
    pub hosts: Informer<Host>,
    pub quotas: Informer<ResourceQuota>,
    /// Revisions by the uid of the service that owns them.
    pub revisions_by_owner: Index<Revision>,
    /// Revisions that wait for room, under [`WAITING`].
    pub revisions_waiting: Index<Revision>,
    /// Replicas by the uid of the revision that owns them.
    pub replicas_by_owner: Index<Replica>,
    /// Replicas by the host that they are bound to.
    pub replicas_by_host: Index<Replica>,
}

impl Run {
    pub fn new(context: RunContext) -> Self {
        let informers = &context.informers;
        let (revisions, replicas) = (informers.of::<Revision>(), informers.of::<Replica>());
        Self {
            refusals: Refusals::default(),
            services: informers.of(),
            machines: informers.of(),
            hosts: informers.of(),
            quotas: informers.of(),
            revisions_by_owner: revisions.by_owner(),
            revisions_waiting: revisions.index(|revision: &Revision| {
                let active = revision.status.as_ref().and_then(|status| conditions::get(&status.conditions, ACTIVE));
                let is_waiting = active.is_some_and(|active| active.reason == UNSCHEDULABLE);
                is_waiting.then(|| WAITING.to_owned()).into_iter().collect()
            }),
            replicas_by_owner: replicas.by_owner(),
            replicas_by_host: replicas.index(|replica: &Replica| vec![replica.spec.host_name.clone()]),
            revisions,
            replicas,
            base: context.base,
            settings: context.settings,
            images: context.images,
            book: context.book,
        }
    }

    /// Waits until everything that exists has been read once.
    pub async fn ready(&self) {
        self.book.ready().await;
        self.services.ready().await;
        self.revisions.ready().await;
    }
}
