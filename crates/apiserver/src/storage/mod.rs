//! Where objects lie in the store, and in which form.

pub mod encoding;
pub mod keys;
pub mod pick;
pub mod write;
