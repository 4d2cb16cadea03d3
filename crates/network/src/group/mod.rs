//! ResourceGroup -> Namespace, VirtualPrivateCloud, Subnet.
//!
//! ```text
//!   (new) ── namespace and network made ──▶ Ready ── deleted ──▶ NamespaceTerminating ── empty ──▶ forgotten outside the API ──▶ removed
//!     │ the namespace of a former group of this name exists: NamespaceTerminating
//!     │ a namespace of this name belongs to no group: NamespaceTaken
//! ```
//! The namespace has the group's name. A missing one is made again, an existing one is left alone. A group that is deleted takes
//! its namespace along and waits for it: the namespace empties itself, the group's data outside the API is removed, then the group is.
//! A namespace that belongs to something else is never taken over.
//! Who writes what: this controller writes ResourceGroup.status, its finalizer, the namespace, the default VPC and subnet.

mod observe;
mod plan;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use run::run;
