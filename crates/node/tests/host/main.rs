//! Tests of the host agent with real processes, as root.
mod containers;
mod net;
mod shim;
