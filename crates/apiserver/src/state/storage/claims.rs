//! Claims as they are stored: the holder of something that only one object may hold.

use serde::{Deserialize, Serialize};

/// The holder of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The kind.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid, which identifies the holder.
    pub uid: String,
}

/// A quota ledger that a create must find unchanged and then changes: its claim's name, and its revision if it exists.
pub(crate) type Ledger = (String, Option<u64>);
