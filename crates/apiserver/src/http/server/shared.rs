//! The state that all requests share: the store, the cache, the registry and the builder's settings.

use std::sync::Arc;

use evroc_store::Store;
use tokio_util::sync::CancellationToken;

use crate::http::audit::AuditSink;
use crate::http::authn::{Authenticate, Revoked};
use crate::http::authz::Authorize;
use crate::http::discovery::Documents;
use crate::http::discovery::of_views::ViewDocuments;
use crate::http::flow::Flow;
use crate::http::health::Probes;
use crate::http::metrics::{Metrics, MetricsOfOthers};
use crate::http::mount::Mount;
use crate::http::views::Views;
use crate::object::registry::Registry;
use crate::state::cache::Cache;

/// The state that all requests share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) authenticator: Arc<dyn Authenticate>,
    pub(crate) revoked: Arc<Revoked>,
    pub(crate) authorizer: Arc<dyn Authorize>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) documents: Documents,
    pub(crate) flow: Flow,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) view_documents: ViewDocuments,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) metrics: Metrics,
    pub(crate) others: Arc<dyn MetricsOfOthers>,
    pub(crate) probes: Probes,
    /// Hosts whose pages may open WebSockets here, besides the host of the request itself.
    pub(crate) origins: Vec<String>,
    /// Cancelled when the server stops; watches then end their streams.
    pub(crate) stopping: CancellationToken,
}
