//! The second floor: objects in the store and in the cache, and the transaction that writes them.

pub(crate) mod cache;
pub(crate) mod commit;
pub(crate) mod lanes;
pub(crate) mod ledgers;
pub(crate) mod quota;
pub(crate) mod storage;
