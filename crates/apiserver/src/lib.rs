//! A Kubernetes-style API server over a store. It knows no kind by name: kinds are registered.
//!
//! A request passes, in this order: [`authn`] (who), [`request`] (what is asked, from the normalised path), [`authz`]
//! (may they), then a verb of `verbs` or a document of `discovery`; [`audit`] records the outcome. Reads are answered
//! from `cache`, which one watch of the whole store feeds; writes are transactions of the store.

pub mod apply;
pub mod connect;
pub mod kind;
pub mod meta_validate;
pub mod openapi;
pub mod patch;
pub mod schema;
pub mod selector;
pub mod table;
pub mod virtual_kind;

pub use connect::{Connect, ConnectRequest};
pub use kind::{
    ClaimKey, ClaimRefusal, CrdError, PrinterColumn, ResourceKind, ScalePaths, Scope, SharedStorage, Subresources,
};
