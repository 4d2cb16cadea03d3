//! The finalizers of garbage collection, which determine what happens to an object's dependents.

/// The finalizer of an owner that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizer of an owner whose dependents are kept.
pub(crate) const ORPHAN: &str = "orphan";
