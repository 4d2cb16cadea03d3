//! The server, and the path of a request through it.

pub(crate) mod enter;
pub(crate) mod exposition;
mod handler;
mod origin;
mod probes;
mod service;
pub(crate) mod shared;

use std::sync::Arc;

pub use service::{IdentityService, NetworkService};

use crate::object::identity::Identity;
use crate::object::registry::Registry;
use shared::Shared;

/// An API server. Cheap to clone; dropping the last clone ends its background tasks.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Arc<Shared>,
}

impl ApiServer {
    /// Returns the API for one caller in this process: a service for `kube::Client::new`. A request cannot change the identity;
    /// authorisation and audit apply as over the network.
    pub fn service_as(&self, identity: Identity) -> IdentityService {
        IdentityService::new(self.shared.clone(), identity)
    }

    /// Returns the API for callers that authenticate with each request; requests may carry a [`crate::http::authn::Peer`] as an
    /// extension.
    pub fn service(&self) -> NetworkService {
        NetworkService::new(self.shared.clone())
    }

    /// Returns a `kube` client for one caller in this process.
    pub fn client_as(&self, identity: Identity, default_namespace: &str) -> kube::Client {
        kube::Client::new(self.service_as(identity), default_namespace)
    }

    /// Returns the registered kinds.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Ends watches and background tasks. Running requests are finished by their listener.
    pub fn shut_down(&self) {
        self.shared.stopping.cancel();
    }
}
