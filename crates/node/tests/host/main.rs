//! Tests of the host agent with real processes, as root.
mod containers;
mod machines;
mod net;
mod shim;
mod unpack;
