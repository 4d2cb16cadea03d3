//! Ledgers: quantities that objects take together, whose sum must not exceed the available amount.
//!
//! A ledger has a name (`host/<name>`, `group/<name>`) and one or more resources (`memory`, `disk`). What objects take from it is summed and compared
//! with the room in the same store transaction that writes an object, so that no two of them take the same room. A host gives the room of
//! its ledger. The ledger of a resource group has the room that its ResourceQuotas allow, or any amount without one.
//! That of a placement group has a fixed room, whether the group exists or not.

/// Bytes of memory.
pub const MEMORY: &str = "memory";
/// Bytes of disk.
pub const DISK: &str = "disk";
/// Bytes of memory that what runs in a resource group has, by the name that a ResourceQuota calls it.
pub const GROUP_MEMORY: &str = "requests.memory";
/// Bytes of all disks of a resource group, by the name that a ResourceQuota calls it.
pub const GROUP_STORAGE: &str = "requests.storage";

/// Virtual machines of a placement group.
pub const MEMBERS: &str = "members";

/// The amount of one resource of a ledger that an object takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The ledger, for example `host/host-1`.
    pub ledger: String,
    /// The resource, for example [`MEMORY`].
    pub resource: &'static str,
    /// How much, in the resource's unit.
    pub amount: u64,
    /// The field that states the amount, for the refusal.
    pub field: &'static str,
    /// The room of a ledger that no object gives.
    pub limit: Option<Limit>,
}

/// A fixed room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How much, in the resource's unit.
    pub amount: u64,
    /// The refusal of a user who wants more. The user chose the ledger, so the object is invalid.
    pub message: String,
}

/// The room that an object gives to one resource of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The ledger.
    pub ledger: String,
    /// The resource.
    pub resource: &'static str,
    /// How much, in the resource's unit.
    pub amount: u64,
}

/// The ledger of the resource group with this namespace.
pub fn of_group(namespace: &str) -> String {
    format!("group/{namespace}")
}

/// The ledger of a placement group.
pub fn of_placement_group(namespace: &str, name: &str) -> String {
    format!("placement-group/{namespace}/{name}")
}

/// The ledger of a host.
pub fn of_host(name: &str) -> String {
    format!("host/{name}")
}
