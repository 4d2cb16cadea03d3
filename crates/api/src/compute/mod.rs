//! `compute.evroclabs.net`: virtual machines, disks and the catalogue they are made from.

mod catalogue;
mod disk;
mod virtual_machine;
mod virtual_machine_rules;

pub use catalogue::*;
pub use disk::*;
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
