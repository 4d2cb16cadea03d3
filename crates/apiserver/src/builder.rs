//! Builds a server.

use std::path::Path;
use std::sync::Arc;

use evroc_metrics::Registry as MetricsRegistry;
use evroc_store::{Store, StoreError};
use serde_json::Value;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::background::{expiry, gc, namespaces, quota, revocations};
use crate::core_kinds;
use crate::http::audit::{AuditSink, NoAudit};
use crate::http::authn::{Authenticate, AuthenticatorChain};
use crate::http::authz::{Authorize, GroupAuthorizer};
use crate::http::discovery::Documents;
use crate::http::discovery::of_views::ViewDocuments;
use crate::http::flow::{Flow, FlowLimits};
use crate::http::health::{HealthCheck, Probes};
use crate::http::metrics::{Metrics, MetricsOfOthers, NoOthers};
use crate::http::mount::Mount;
use crate::http::server::shared::Shared;
use crate::http::server::{ApiServer, exposition};
use crate::http::views::{NoViews, Views};
use crate::object::connect::Connect;
use crate::object::kind::{CrdError, ResourceKind};
use crate::object::registry::{RegisterError, Registry};
use crate::state::cache::Cache;

/// The reason why a server cannot start.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A kind cannot be served.
    #[error("registering kinds")]
    Register(#[from] RegisterError),
    /// A definition cannot be read.
    #[error("reading a CustomResourceDefinition")]
    Crd(#[from] CrdError),
    /// A definition's file cannot be read.
    #[error("reading {path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        problem: String,
    },
    /// A handler is for a kind that is not registered.
    #[error("adding subresource {subresource:?}: no kind {kind:?} is registered")]
    NoSuchKind {
        /// The kind as given.
        kind: String,
        /// The subresource.
        subresource: String,
    },
    /// The store cannot be read.
    #[error("loading the store")]
    Store(#[from] StoreError),
}

/// Configures a server.
pub struct Builder {
    store: Arc<dyn Store>,
    kinds: Vec<ResourceKind>,
    connect: Vec<(String, String, Arc<dyn Connect>)>,
    authenticator: Arc<dyn Authenticate>,
    authorizer: Arc<dyn Authorize>,
    audit: Arc<dyn AuditSink>,
    views: Arc<dyn Views>,
    mounts: Vec<Mount>,
    checks: Vec<Arc<dyn HealthCheck>>,
    origins: Vec<String>,
    flow: FlowLimits,
    metrics: MetricsRegistry,
    others: Arc<dyn MetricsOfOthers>,
    controllers: bool,
    core_kinds: bool,
}

impl Builder {
    fn new(store: Arc<dyn Store>) -> Self {
        Builder {
            store,
            kinds: Vec::new(),
            connect: Vec::new(),
            authenticator: Arc::new(AuthenticatorChain::default()),
            authorizer: Arc::new(GroupAuthorizer::default()),
            audit: Arc::new(NoAudit),
            views: Arc::new(NoViews),
            mounts: Vec::new(),
            checks: Vec::new(),
            origins: Vec::new(),
            flow: FlowLimits::default(),
            metrics: MetricsRegistry::default(),
            others: Arc::new(NoOthers),
            controllers: true,
            core_kinds: true,
        }
    }

    /// Registers a kind.
    #[must_use]
    pub fn kind(mut self, kind: ResourceKind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Registers the kind of a CustomResourceDefinition.
    ///
    /// # Errors
    /// If the definition cannot be used.
    pub fn crd(self, definition: &Value) -> Result<Self, BuildError> {
        Ok(self.kind(ResourceKind::from_crd(definition)?))
    }

    /// Registers the kinds of all CustomResourceDefinitions in the YAML and JSON files of a folder.
    ///
    /// # Errors
    /// If a file cannot be read or a definition cannot be used.
    pub fn crd_dir(mut self, dir: &Path) -> Result<Self, BuildError> {
        self.kinds.extend(ResourceKind::in_dir(dir)?);
        Ok(self)
    }

    /// Serves a subresource of a kind (`plural.group`) by a handler of your own.
    #[must_use]
    pub fn connect(mut self, kind: &str, subresource: &str, handler: Arc<dyn Connect>) -> Self {
        self.connect.push((kind.into(), subresource.into(), handler));
        self
    }

    /// Sets the authenticator; by default no caller is known.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticate>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Sets the authorizer; by default everything is denied.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorize>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// Sets the audit sink; by default records are dropped.
    #[must_use]
    pub fn audit(mut self, audit: Arc<dyn AuditSink>) -> Self {
        self.audit = audit;
        self
    }

    /// Sets the views under `/clusters/<name>`; by default there are none.
    #[must_use]
    pub fn views(mut self, views: Arc<dyn Views>) -> Self {
        self.views = views;
        self
    }

    /// Adds a service on the same listeners; the first that accepts a request gets it.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Adds a health check.
    #[must_use]
    pub fn health_check(mut self, check: Arc<dyn HealthCheck>) -> Self {
        self.checks.push(check);
        self
    }

    /// Sets the registry that the server's metrics are added to and that `GET /metrics` shows; by default one of its own.
    #[must_use]
    pub fn metrics(mut self, registry: MetricsRegistry) -> Self {
        self.metrics = registry;
        self
    }

    /// Serves the metrics of other processes below `/metrics`.
    #[must_use]
    pub fn metrics_of_others(mut self, others: Arc<dyn MetricsOfOthers>) -> Self {
        self.others = others;
        self
    }

    /// Lets pages of this host (`console.example.org`, with a port other than 443 after a colon) open WebSockets. Pages of the
    /// request's own host always may, and so do programs, which send no `Origin`.
    #[must_use]
    pub fn allow_origin(mut self, host: &str) -> Self {
        self.origins.push(host.to_ascii_lowercase());
        self
    }

    /// Sets how many requests of one caller run and wait.
    #[must_use]
    pub fn flow_limits(mut self, limits: FlowLimits) -> Self {
        self.flow = limits;
        self
    }

    /// Disables garbage collection, expiry, quotas and the life-cycle of namespaces.
    #[must_use]
    pub fn without_controllers(mut self) -> Self {
        self.controllers = false;
        self
    }

    /// Disables the core kinds: no namespaces (any name is accepted), events, …
    #[must_use]
    pub fn without_core_kinds(mut self) -> Self {
        self.core_kinds = false;
        self
    }

    /// Loads the store and starts the background tasks.
    ///
    /// # Errors
    /// If a kind cannot be served or the store cannot be read.
    pub async fn start(self) -> Result<ApiServer, BuildError> {
        let mut kinds = if self.core_kinds { core_kinds::all(self.authorizer.clone()) } else { Vec::new() };
        kinds.extend(self.kinds);
        for (name, subresource, handler) in self.connect {
            let kind = kinds.iter_mut().find(|kind| kind.qualified_plural() == name);
            let kind = kind.ok_or_else(|| BuildError::NoSuchKind { kind: name, subresource: subresource.clone() })?;
            kind.connect.insert(subresource, handler);
        }
        let registry = Arc::new(Registry::new(kinds)?);
        let cache = Cache::start(self.store.clone(), &registry).await?;
        let server = ApiServer {
            shared: Arc::new(Shared {
                store: self.store,
                documents: Documents::new(registry.clone()),
                view_documents: ViewDocuments::new(&registry, &*self.views),
                metrics: Metrics::new(self.metrics, &registry),
                others: self.others,
                registry,
                cache,
                authenticator: self.authenticator,
                revoked: Arc::default(),
                authorizer: self.authorizer,
                audit: self.audit,
                views: self.views,
                mounts: self.mounts,
                probes: Probes::new(self.checks),
                origins: self.origins,
                flow: Flow::new(self.flow),
                stopping: CancellationToken::new(),
            }),
        };
        exposition::measure_state(&server.shared);
        revocations::start(&server);
        if self.controllers {
            gc::start(&server);
            expiry::start(&server);
            namespaces::start(&server);
            quota::start(&server);
        }
        Ok(server)
    }
}

impl ApiServer {
    /// Returns a builder of a server.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        Builder::new(store)
    }
}

impl ResourceKind {
    /// Returns the kinds of all CustomResourceDefinitions in the YAML and JSON files of a folder.
    ///
    /// # Errors
    /// If a file cannot be read or a definition cannot be used.
    pub fn in_dir(dir: &Path) -> Result<Vec<Self>, BuildError> {
        definitions_in(dir)?.iter().map(|it| Ok(Self::from_crd(it)?)).collect()
    }
}

/// Reads all CustomResourceDefinitions in the files of a folder, in the order of the files' names.
fn definitions_in(dir: &Path) -> Result<Vec<Value>, BuildError> {
    let failed = |path: &Path, problem: String| BuildError::File { path: path.display().to_string(), problem };
    let entries = std::fs::read_dir(dir).map_err(|error| failed(dir, error.to_string()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json"))
        .collect();
    files.sort();
    let mut definitions = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| failed(&file, error.to_string()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).map_err(|error| failed(&file, error.to_string()))?;
        let is_definition = |it: &Value| it.get("kind").is_some_and(|kind| kind == "CustomResourceDefinition");
        definitions.extend(documents.into_iter().filter(is_definition));
    }
    Ok(definitions)
}
