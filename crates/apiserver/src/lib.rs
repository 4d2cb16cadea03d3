//! A Kubernetes-style API server over a store. It knows no kind by name: kinds are registered.
//!
//! A request passes, in this order: [`authn`] (who), `request` (what is asked, from the normalised path), [`authz`]
//! (may they), then a verb of `verbs` or a document of `discovery`; [`audit`] records the outcome. Reads are answered
//! from `cache`, which one watch of the whole store feeds; writes are transactions of the store (`storage`).
//!
//! Invariants: only this crate touches the store; an object is encoded once, whoever reads it; decisions are made on the
//! normalised request only; controllers of this crate (`gc`, `namespaces`) write through the API like everybody else.

pub mod apply;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
mod cache;
pub mod connect;
mod core_kinds;
mod discovery;
pub mod error;
mod expiry;
pub mod flow;
mod gc;
pub mod health;
pub mod kind;
pub mod meta_validate;
pub mod mount;
mod namespaces;
pub mod openapi;
pub mod patch;
pub mod registry;
mod request;
mod respond;
pub mod schema;
pub mod selector;
pub mod serve;
pub mod server;
mod storage;
pub mod table;
mod verbs;
pub mod virtual_kind;
mod watch;

pub use authn::Identity;
pub use connect::{Connect, ConnectRequest};
pub use error::ApiError;
pub use kind::{
    ClaimKey, ClaimRefusal, CrdError, PrinterColumn, ResourceKind, ScalePaths, Scope, SharedStorage, Subresources,
};
pub use serve::ServeOptions;
pub use server::{ApiServer, BuildError, Builder};
