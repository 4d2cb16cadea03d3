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

/// A ledger that a write must find as it was when its sum was read, and then writes.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// The name of its claim.
    pub(crate) name: String,
    /// The state that it was in.
    pub(crate) before: Before,
}

/// The state of a ledger's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It did not exist.
    Absent,
    /// This revision wrote it.
    Revision(u64),
    /// The write with this mark, which is under way, writes it.
    Written(Mark),
}

impl From<Option<u64>> for Before {
    fn from(revision: Option<u64>) -> Self {
        revision.map_or(Before::Absent, Before::Revision)
    }
}

/// Identifies one write of a ledger: the value that it gives to the ledger's key.
pub(crate) type Mark = bytes::Bytes;

/// Returns the value of a ledger's key for one write of `holder`; no other write has the same.
pub(crate) fn mark(holder: &Holder) -> Mark {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(flatten)]
        holder: &'a Holder,
        write: uuid::Uuid,
    }
    // Serialising strings cannot fail.
    serde_json::to_vec(&Written { holder, write: uuid::Uuid::new_v4() }).unwrap_or_default().into()
}
