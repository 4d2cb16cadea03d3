//! OCI distribution registry.
