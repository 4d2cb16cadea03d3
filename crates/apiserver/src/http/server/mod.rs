//! The server: what all requests share, and a request from arrival to answer.

pub(crate) mod enter;
mod handler;
mod probes;
mod service;
pub(crate) mod shared;

use std::sync::Arc;

pub use service::{IdentityService, NetworkService};

use crate::object::identity::Identity;
use crate::object::registry::Registry;
use shared::Shared;

/// An API server. Cheap to clone; the last clone that goes ends its background tasks.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Arc<Shared>,
}

impl ApiServer {
    /// The API as seen by one caller in this process: a service for `kube::Client::new`. The identity stands in the
    /// service and cannot be changed by a request; authorisation and audit apply as over the network.
    pub fn service_as(&self, identity: Identity) -> IdentityService {
        IdentityService::new(self.shared.clone(), identity)
    }

    /// The API for callers who authenticate themselves; requests may carry a [`crate::http::authn::Peer`] as an extension.
    pub fn service(&self) -> NetworkService {
        NetworkService::new(self.shared.clone())
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
