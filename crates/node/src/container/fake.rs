//! A registry in memory, for tests.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::digest::Digest;
use super::fetch::{ByteStream, FetchError, ImageFetch};

/// A layer as it travels.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) wire: Vec<u8>,
    pub(crate) diff_id: Digest,
}

impl Layer {
    /// From a tar archive.
    pub(crate) fn from_tar(tar: Vec<u8>) -> Self {
        Self { diff_id: Digest::of(&tar), wire: tar }
    }

    pub(crate) fn plain(files: &[(&str, &str)]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data.as_bytes()).unwrap();
        }
        Self::from_tar(builder.into_inner().unwrap())
    }

    pub(crate) fn gzip(files: &[(&str, &str)]) -> Self {
        let plain = Self::plain(files);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain.wire).unwrap();
        Self { wire: gzip.finish().unwrap(), ..plain }
    }

    pub(crate) fn zstd(files: &[(&str, &str)]) -> Self {
        let plain = Self::plain(files);
        Self { wire: zstd::encode_all(&plain.wire[..], 1).unwrap(), ..plain }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.wire)
    }
}

/// A registry in memory.
#[derive(Default)]
pub(crate) struct FakeRegistry {
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
    pub(crate) layers: Vec<Digest>,
    pub(crate) layer_fetches: AtomicUsize,
}

impl FakeRegistry {
    fn put(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// Adds an image and returns its manifest's digest; `rootfs` is filled in unless `config` has it.
    pub(crate) fn add(&mut self, layers: &[Layer], mut config: Value) -> Digest {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        if config.get("rootfs").is_none() {
            config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        }
        let mut described = Vec::new();
        for layer in layers {
            let digest = self.put(layer.wire.clone());
            self.layers.push(digest);
            described.push(json!({"digest": digest, "size": layer.wire.len()}));
        }
        let config = serde_json::to_vec(&config).unwrap();
        let size = config.len();
        let config = json!({"digest": self.put(config), "size": size});
        self.put(serde_json::to_vec(&json!({"schemaVersion": 2, "config": config, "layers": described})).unwrap())
    }

    pub(crate) fn add_index(&mut self, entries: &[(Digest, &str, &str)]) -> Digest {
        let entries: Vec<_> = entries
            .iter()
            .map(|(digest, os, architecture)| {
                let size = self.blobs[digest].len();
                json!({"digest": digest, "size": size, "platform": {"os": os, "architecture": architecture}})
            })
            .collect();
        self.put(serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": entries})).unwrap())
    }

    pub(crate) fn blob_mut(&mut self, digest: Digest) -> &mut Vec<u8> {
        self.blobs.get_mut(&digest).unwrap()
    }

    fn get(&self, digest: Digest) -> Result<ByteStream, FetchError> {
        let bytes = self.blobs.get(&digest).ok_or_else(|| FetchError::NotFound { url: format!("/{digest}") })?;
        let chunks: Vec<_> = bytes.chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        Ok(Box::pin(futures::stream::iter(chunks)))
    }
}

#[async_trait]
impl ImageFetch for FakeRegistry {
    async fn manifest(&self, _repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.get(digest)
    }

    async fn blob(&self, _repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        if self.layers.contains(&digest) {
            self.layer_fetches.fetch_add(1, Ordering::Relaxed);
        }
        self.get(digest)
    }

    async fn check_blob(&self, _repository: &str, digest: Digest) -> Result<(), FetchError> {
        self.get(digest).map(drop)
    }
}
