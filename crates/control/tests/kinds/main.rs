//! The kinds of the cloud in a real API server in this process: what they refuse.

mod immutable;
mod names;
mod support;
