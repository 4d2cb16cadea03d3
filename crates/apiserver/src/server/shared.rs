//! What all requests share: the store, the cache, the registry and what the builder was given.

use std::sync::Arc;

use evroc_store::Store;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditSink;
use crate::authn::Authenticate;
use crate::authz::Authorize;
use crate::cache::Cache;
use crate::discovery::Documents;
use crate::discovery::of_views::ViewDocuments;
use crate::flow::Flow;
use crate::health::HealthCheck;
use crate::mount::Mount;
use crate::registry::Registry;
use crate::views::Views;

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
