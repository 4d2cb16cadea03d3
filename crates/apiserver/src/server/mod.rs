//! The server: what it is made of, and how one is built.

mod builder;
mod handler;
mod service;

use std::sync::Arc;

use evroc_store::Store;
use tokio_util::sync::CancellationToken;

pub use builder::{BuildError, Builder};
pub use service::{IdentityService, NetworkService};

use crate::audit::AuditSink;
use crate::authn::{Authenticate, Identity};
use crate::authz::Authorize;
use crate::cache::Cache;
use crate::discovery::Documents;
use crate::flow::Flow;
use crate::health::HealthCheck;
use crate::mount::Mount;
use crate::registry::Registry;
use crate::views::{ViewDocuments, Views};

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) authenticator: Arc<dyn Authenticate>,
    pub(crate) authorizer: Arc<dyn Authorize>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) documents: Documents,
    pub(crate) flow: Flow,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) view_documents: ViewDocuments,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) checks: Vec<Arc<dyn HealthCheck>>,
    /// Cancelled when the server shall end: watches then end their streams.
    pub(crate) stopping: CancellationToken,
}

/// An API server. Cheap to clone; the last clone that goes ends its background tasks.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Arc<Shared>,
}

impl ApiServer {
    /// Begins to describe a server.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        Builder::new(store)
    }

    /// The API as seen by one caller in this process: a service for `kube::Client::new`. The identity stands in the
    /// service and cannot be changed by a request; authorisation and audit apply as over the network.
    pub fn service_as(&self, identity: Identity) -> IdentityService {
        IdentityService::new(self.clone(), identity)
    }

    /// The API for callers who authenticate themselves; requests may carry a [`crate::authn::Peer`] as an extension.
    pub fn service(&self) -> NetworkService {
        NetworkService::new(self.clone())
    }

    /// A `kube` client for one caller in this process.
    pub fn client_as(&self, identity: Identity, default_namespace: &str) -> kube::Client {
        kube::Client::new(self.service_as(identity), default_namespace)
    }

    /// The registered kinds.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Ends watches and background tasks; requests that run are finished by whoever serves them.
    pub fn shut_down(&self) {
        self.shared.stopping.cancel();
    }
}
