//! A Kubernetes-style API server over a store. It knows no kind by name: kinds are registered.
//!
//! A request passes, in this order: [`authn`] (who), `request` (what is asked, from the normalised path), [`authz`]
//! (may they), then a verb of `verbs` or a document of `discovery`; [`audit`] records the outcome. Reads are answered
//! from `cache`, which one watch of the whole store feeds; writes are transactions of the store (`storage`).
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
//! // In process: the identity stands in the service.
//! let client: kube::Client = server.client_as(Identity::controller("compute"), "demo");
//! // On the network: the identity comes from the client's certificate.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:6443").await?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! server.serve(vec![listener], tls, ServeOptions::default(), stop).await?;
//! # Ok(()) }
//! ```
//!
//! Where it differs from Kubernetes' own server for custom resources, on purpose: unknown paths are answered with a
//! `Status` and not with a text; a create with a name in the path is
//! refused (405), since the name that was authorised is not the one that would be made; identities cannot be
//! impersonated; what belongs to an owner that is gone is deleted, and namespaces exist.
//!
//! Invariants: only this crate touches the store; an object is encoded once, whoever reads it; decisions are made on the
//! normalised request only; controllers of this crate (`gc`, `namespaces`) write through the API like everybody else.

pub mod apply;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
mod builder;
mod cache;
mod commit;
pub mod connect;
mod core_kinds;
mod discovery;
pub mod error;
mod expiry;
mod field_error;
pub mod flow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gc;
pub mod health;
mod identity;
pub mod kind;
pub mod meta_validate;
pub mod mount;
mod namespaces;
pub mod openapi;
pub mod patch;
mod quota;
pub mod registry;
mod request;
mod respond;
pub mod schema;
pub mod selector;
mod send;
pub mod serve;
pub mod server;
mod storage;
pub mod table;
mod time;
mod verbs;
pub mod views;
pub mod virtual_kind;
mod watch;

pub use builder::{BuildError, Builder};
pub use connect::{Connect, ConnectRequest};
pub use error::ApiError;
pub use identity::Identity;
pub use kind::{
    ClaimKey, ClaimRefusal, CrdError, PrinterColumn, ResourceKind, ScalePaths, Scope, SharedStorage, Subresources,
};
pub use serve::ServeOptions;
pub use server::ApiServer;
