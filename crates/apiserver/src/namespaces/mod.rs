//! The life-cycle of namespaces.

use crate::server::ApiServer;

/// Starts it.
pub(crate) fn start(_server: &ApiServer) {}
