//! The first floor: what an object is. Kinds, schemas, metadata, patches, server-side apply, selectors, tables and published
//! schemas.
//!
//! Nothing in here knows the store, the cache or a connection: it is pure but for handlers that kinds carry.

pub mod apply;
pub mod body;
pub mod connect;
pub mod error;
pub(crate) mod field_error;
pub(crate) mod go_text;
pub(crate) mod identity;
pub mod kind;
pub mod meta_validate;
pub mod openapi;
pub mod patch;
pub(crate) mod problems;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod table;
pub(crate) mod time;
pub mod virtual_kind;
