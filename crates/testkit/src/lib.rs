//! The platform in one process, with simulated hosts.
