//! The JSON of images, in OCI's and Docker's form: index, manifest and configuration.

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// A pointer to a blob.
#[derive(Debug, Clone, Deserialize)]
pub struct Descriptor {
    /// The blob's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The platform (entries of an index only).
    pub platform: Option<Platform>,
}

/// The platform of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go names it: `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// As Go names it: `linux`.
    #[serde(default)]
    pub os: String,
}

impl Platform {
    /// The only platform that replicas run on.
    pub fn is_supported(&self) -> bool {
        self.architecture == "amd64" && self.os == "linux"
    }
}

/// The kinds of documents that a manifest's digest may lead to.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image per platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, lowest first.
        layers: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
struct RawDocument {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads an index or a manifest; the message of an error names the missing part.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawDocument = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match raw {
            RawDocument { manifests: Some(manifests), config: None, layers: None } => Ok(Self::Index(manifests)),
            RawDocument { manifests: None, config: Some(config), layers: Some(layers) } => {
                Ok(Self::Manifest { config, layers })
            }
            _ => Err("expected either `manifests` (an index) or `config` and `layers` (an image)".into()),
        }
    }
}

/// An image's configuration, as far as running it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The platform.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it.
    #[serde(default)]
    pub config: RunConfig,
    /// The layers.
    pub rootfs: RootFs,
}

/// The `config` part: a Dockerfile's USER, ENV, ENTRYPOINT, CMD, WORKDIR and STOPSIGNAL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// USER.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// ENV, as `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// ENTRYPOINT.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// CMD.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// WORKDIR.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// STOPSIGNAL.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
}

/// Returns the layers by the digest of their content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed archives, lowest first.
    pub diff_ids: Vec<Digest>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
