//! Rules for `metadata`: names, labels, annotations, finalizers, owner references.

pub mod names;

use crate::schema::FieldError;
use serde_json::Value;

/// Checks `metadata` on create (`old` = None) and update. `generateName` must have been turned into `name` before.
pub fn validate_metadata(object: &Value, old: Option<&Value>, namespaced: bool) -> Vec<FieldError> {
    let _ = (object, old, namespaced);
    Vec::new()
}

/// `generateName` plus five random characters; `random` gives them (0..27 each is enough entropy for a character).
pub fn generate_name(base: &str, random: [u8; 5]) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base: String = base.chars().take(58).collect();
    let suffix: String = random.iter().map(|b| ALPHABET[*b as usize % ALPHABET.len()] as char).collect();
    base + &suffix
}
