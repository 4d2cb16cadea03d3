//! Sizes as the API writes them: an amount and a unit, powers of 1024 (a 32 GB disk is 34,359,738,368 bytes in the guest).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The unit of a size; powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unit {
    /// 1024 bytes.
    KB,
    /// 1024 KB.
    MB,
    /// 1024 MB.
    GB,
    /// 1024 GB.
    TB,
}

impl Unit {
    /// How many bytes one of it is.
    pub const fn bytes(self) -> u64 {
        match self {
            Unit::KB => 1 << 10,
            Unit::MB => 1 << 20,
            Unit::GB => 1 << 30,
            Unit::TB => 1 << 40,
        }
    }
}

/// A size: `amount` times `unit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    /// How many units.
    #[schemars(range(min = 0))]
    pub amount: i64,
    /// The unit; powers of 1024.
    pub unit: Unit,
}

impl Size {
    /// The size in bytes; `None` when it is negative or does not fit.
    pub fn bytes(self) -> Option<u64> {
        u64::try_from(self.amount).ok()?.checked_mul(self.unit.bytes())
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.amount, self.unit)
    }
}
