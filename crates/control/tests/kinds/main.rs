//! The kinds of the cloud in a real API server in this process: refused objects and changes; and the registry beside it.

mod images;
mod immutable;
mod names;
mod streams;
mod support;
mod user_data;
