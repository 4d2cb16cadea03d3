//! The kinds of the cloud in a real API server in this process: refused objects and changes.

mod immutable;
mod names;
mod support;
