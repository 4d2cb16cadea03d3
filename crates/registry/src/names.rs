//! Names of the distribution specification, parsed once: what these types hold is safe as a path on disk.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Code, RegistryError};

/// The name of a repository, such as `demo/hello`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// Leaves room for the registry's host name within the 255 characters that clients accept for both.
const REPOSITORY_LENGTH: usize = 200;

impl Repository {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first slash.
    #[must_use]
    pub fn first_component(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl FromStr for Repository {
    type Err = RegistryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.len() <= REPOSITORY_LENGTH && name.split('/').all(is_component) {
            return Ok(Repository(name.to_owned()));
        }
        Err(RegistryError::new(
            Code::NameInvalid,
            format!(
                "invalid repository name {name:?}: expected at most {REPOSITORY_LENGTH} characters in components of a-z and 0-9, \
                 joined by '.', '_', '__' or dashes within and by '/' between them"
            ),
        ))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = component.split(is_word).filter(|separator| !separator.is_empty());
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|byte| byte == b'-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = RegistryError;

    fn from_str(tag: &str) -> Result<Self, Self::Err> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = tag.len() <= 128
            && tag.bytes().next().is_some_and(is_word)
            && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if valid {
            return Ok(Tag(tag.to_owned()));
        }
        Err(RegistryError::new(
            Code::ManifestInvalid,
            format!(
                "invalid tag {tag:?}: expected 1 to 128 letters, digits, '_', '.' or '-', the first not '.' or '-'"
            ),
        ))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The hash functions of digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// The default of all clients.
    Sha256,
    /// Allowed by the specification.
    Sha512,
}

impl Algorithm {
    /// As it is written before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// The name of some bytes: `sha256:<64 hex digits>` or `sha512:<128 hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The digest of `content`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Digest::from_hash(algorithm, &Sha256::digest(content)),
            Algorithm::Sha512 => Digest::from_hash(algorithm, &Sha512::digest(content)),
        }
    }

    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        let hex = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest { algorithm, hex }
    }

    /// The hash function.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The part after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Digest {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (algorithm, hex) = text.split_once(':')?;
            let (algorithm, length) = match algorithm {
                "sha256" => (Algorithm::Sha256, 64),
                "sha512" => (Algorithm::Sha512, 128),
                _ => return None,
            };
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (hex.len() == length && hex.bytes().all(is_hex)).then(|| Digest { algorithm, hex: hex.to_owned() })
        };
        parse().ok_or_else(|| {
            RegistryError::new(
                Code::DigestInvalid,
                format!("invalid digest {text:?}: expected sha256: with 64 or sha512: with 128 lower-case hex digits"),
            )
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

/// How a request names a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By a name that may move.
    Tag(Tag),
    /// By its content.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A tag has no colon.
        if text.contains(':') { text.parse().map(Reference::Digest) } else { text.parse().map(Reference::Tag) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        let long = "a".repeat(REPOSITORY_LENGTH + 1);
        for valid in ["a", "demo/hello", "a.b_c__d-e---f/0/x1", "9"] {
            assert!(valid.parse::<Repository>().is_ok(), "{valid}");
        }
        for invalid in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "_a", "a_", "-a", "a-", ".", "..", "../a",
            "a/../b", "a b", "a\0", "ä", "_catalog", "a/_tags", &long,
        ] {
            assert!(invalid.parse::<Repository>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn references_are_tags_or_digests() {
        let digest = Digest::of(Algorithm::Sha256, b"").to_string();
        assert_eq!(digest, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(Digest::of(Algorithm::Sha512, b"").to_string().parse::<Digest>().is_ok());
        for tag in ["latest", "v1.0-rc_1", "_", "A", &"x".repeat(128)] {
            assert!(matches!(tag.parse(), Ok(Reference::Tag(_))), "{tag}");
        }
        for invalid in [
            "",
            ".",
            "..",
            "-a",
            ".a",
            "a/b",
            "sha256:",
            "sha256:ABC",
            "md5:00",
            "a b",
            &"x".repeat(129),
            &digest.to_uppercase(),
            &digest[..70],
        ] {
            assert!(invalid.parse::<Reference>().is_err(), "{invalid}");
        }
    }
}
