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
    /// This many bytes in the largest unit that gives a whole number; what is less than a KB counts as one.
    pub fn of_bytes(bytes: u64) -> Self {
        let units = [Unit::TB, Unit::GB, Unit::MB];
        let unit = units.into_iter().find(|unit| bytes > 0 && bytes.is_multiple_of(unit.bytes())).unwrap_or(Unit::KB);
        Self { amount: i64::try_from(bytes.div_ceil(unit.bytes())).unwrap_or(i64::MAX), unit }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_whole_unit() {
        for (bytes, shown) in [
            (0, "0 KB"),
            (1, "1 KB"),
            (1 << 10, "1 KB"),
            (1536 << 10, "1536 KB"),
            (512 << 20, "512 MB"),
            (3 << 30, "3 GB"),
            (1 << 40, "1 TB"),
            ((1 << 40) + 1024, "1073741825 KB"),
        ] {
            let size = Size::of_bytes(bytes);
            assert_eq!(size.to_string(), shown, "{bytes}");
            assert!(size.bytes().unwrap() >= bytes);
        }
    }
}
