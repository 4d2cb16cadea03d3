//! Claims as they are stored: who holds a name that only one may hold.

use serde::{Deserialize, Serialize};

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The kind.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid, which decides.
    pub uid: String,
}

/// What a create must find unchanged, and changes: the claim's name and its revision, if it is there.
pub(crate) type Ledger = (String, Option<u64>);
