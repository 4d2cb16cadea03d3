//! The host's network, with real namespaces and taps.

mod guest;
mod missing_tools;
mod stories;
mod takeover;
mod through_host;
