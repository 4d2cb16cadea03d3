//! Tests of the host agent with real processes, as root.
mod cloud_init;
mod containers;
mod machines;
mod net;
mod shim;
mod unpack;
