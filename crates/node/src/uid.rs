//! Uids of objects, checked once.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest uid that is accepted, in bytes. Kubernetes' own have 36; a file name with a prefix and a suffix has 255.
const MAX: usize = 64;

/// The uid of an object. It consists of letters, digits and `-`, so it can be a file name or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Uid(String);

/// A text that is not a uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a uid: expected 1 to {MAX} letters, digits and '-'")]
pub struct InvalidUid(pub String);

impl Uid {
    /// The uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, InvalidUid> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_plain && (1..=MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidUid(text.to_owned()))
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Deref for Uid {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for Uid {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_file_name_is_a_uid() {
        for good in ["6f1c0a52-7a0e-4a54-9d0c-0f6f1f2b7c11", "a", &"x".repeat(MAX)] {
            assert_eq!(good.parse::<Uid>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a\0", "a b", "ä", &"x".repeat(MAX + 1)] {
            assert!(bad.parse::<Uid>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<Uid>(bad.into()).is_err(), "{bad:?}");
        }
    }
}
