//! A Kubernetes-style API server over a store. It knows no kind by name: kinds are registered.
//!
//! A request passes through authentication ([`authn`]), parsing of the normalised path (`request`), authorisation
//! ([`authz`]), and then a verb of `verbs` or a document of `discovery`; [`audit`] records the outcome. Reads are served
//! from `cache`, which one watch of the whole store updates; writes are transactions of the store (`commit`).
//!
//! The modules stand on four floors, and a file imports from its own floor or from lower ones:
//! `object` (what an object is, pure) → `state` (store and cache) → `http` (requests) → `background` (the server's own
//! controllers). Above them stand `core_kinds`, `fuzzing` and, on top of all, `builder`.
//!
//! ```no_run
//! # async fn example(store: std::sync::Arc<dyn evroc_store::Store>, tls: std::sync::Arc<rustls::ServerConfig>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use evroc_apiserver::authz::GroupAuthorizer;
//! use evroc_apiserver::{ApiServer, Identity, ServeOptions};
//!
//! let unlimited = vec!["evroc:operators".into(), "system:controllers".into()];
//! let server = ApiServer::builder(store)
//!     .crd_dir("definitions".as_ref())?
//!     .authorizer(Arc::new(GroupAuthorizer { unlimited }))
//!     .start()
//!     .await?;
//! // In process: the service has the identity.
//! let client: kube::Client = server.client_as(Identity::controller("compute"), "demo");
//! // On the network: the identity comes from the client's certificate.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:6443").await?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! server.serve(vec![listener], tls, ServeOptions::default(), stop).await?;
//! # Ok(()) }
//! ```
//!
//! Intended differences from Kubernetes' own server for custom resources: unknown paths are answered with a `Status`
//! instead of plain text; a create with a name in the path is refused (405), because the authorised name would not be the
//! one that is created; identities cannot be impersonated; dependents of deleted owners are garbage collected, and
//! namespaces exist.
//!
//! Invariants: only this crate accesses the store; an object is encoded once for all readers; decisions depend on the
//! normalised request only; controllers of this crate (`background`) write through the API like other clients.

mod background;
mod builder;
mod core_kinds;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod object;
mod state;

pub use builder::{BuildError, Builder};
pub use http::serve::{ServeOptions, ServerTls};
pub use http::server::ApiServer;
pub use http::{audit, authn, authz, flow, health, metrics, mount, serve, server, views};
pub use object::connect::{Connect, ConnectRequest};
pub use object::error::ApiError;
pub use object::identity::Identity;
pub use object::kind::{
    ClaimKey, ClaimRefusal, CrdError, Limit, PrinterColumn, ResourceKind, Room, ScalePaths, Scope, SharedStorage,
    Subresources, Take,
};
pub use object::{
    apply, body, connect, error, kind, meta_validate, openapi, patch, registry, schema, selector, table, virtual_kind,
};
