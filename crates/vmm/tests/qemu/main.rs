//! The drivers with real programs.
mod image;
mod machine;
mod probe;
