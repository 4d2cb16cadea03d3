//! Connecting to what listens inside a network namespace.
