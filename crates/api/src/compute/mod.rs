//! `compute.evroclabs.net`: virtual machines, disks and the catalogue they are made from.

mod catalogue;
mod disk;
mod placement_group;
mod virtual_machine;
mod virtual_machine_rules;

pub use catalogue::*;
pub use disk::*;
pub use placement_group::*;
pub use virtual_machine::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The zone something is in, or should be in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Placement {
    /// The zone's name, for example `a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The zone that a placement names; an empty text is none.
pub fn zone(placement: Option<&Placement>) -> Option<&str> {
    placement.and_then(|it| it.zone.as_deref()).filter(|zone| !zone.is_empty())
}
