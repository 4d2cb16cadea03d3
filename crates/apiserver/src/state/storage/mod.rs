//! The keys and the encoding of objects in the store.

pub mod claims;
pub mod encoding;
pub mod keys;
pub mod pick;
