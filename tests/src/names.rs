//! Names for what tests make on a machine.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

/// The beginning of every instance name, namespace and folder that a test makes.
pub const PREFIX: &str = "evt-";

/// A name that no other run on this machine has: `evt-` and 8 hex digits, so that it fits an instance name.
pub fn random() -> String {
    // The hasher's keys come from the system's randomness; nothing here needs more than "different every time".
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{PREFIX}{:08x}", hasher.finish() as u32)
}

/// The root of the working tree that the tests were built from.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_valid_instance_name_and_not_given_twice() {
        let (one, other) = (random(), random());
        assert_ne!(one, other);
        assert!(
            one.len() <= 20 && one.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{one}"
        );
    }
}
