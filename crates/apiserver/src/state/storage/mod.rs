//! Where objects lie in the store, and in which form.

pub mod claims;
pub mod encoding;
pub mod keys;
pub mod pick;
