//! The finalizers of garbage collection, which say what becomes of an object's dependents.

/// The finalizer of an owner that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizer of an owner whose dependents shall stay.
pub(crate) const ORPHAN: &str = "orphan";
