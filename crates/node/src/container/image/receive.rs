//! What comes over the wire: documents and layers, verified before anybody sees them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use futures::StreamExt;

use super::ImageReference;
use super::error::{ImageError, disk};
use crate::container::digest::{Digest, HashingReader};
use crate::container::fetch::ByteStream;
use crate::container::manifest::Descriptor;
use crate::container::unpack::{UnpackError, unpack_layer};

/// Manifests and configurations are text of some kilobytes; the registry itself refuses larger ones.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Unpacked size of one layer. Too low refuses honest images (machine-learning layers reach several GB); too high lets a small
/// archive of zeros fill the disk.
const MAX_LAYER_BYTES: u64 = 16 << 30;
/// Receives a small document and checks it.
pub(super) async fn receive(
    reference: &ImageReference,
    what: &str,
    mut stream: ByteStream,
    digest: Digest,
    size: Option<u64>,
) -> Result<Vec<u8>, ImageError> {
    let mismatch = |expected: String, found: String| ImageError::Mismatch {
        image: reference.written.clone(),
        what: what.into(),
        expected,
        found,
    };
    let limit = size.unwrap_or(MAX_DOCUMENT_BYTES).min(MAX_DOCUMENT_BYTES);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| ImageError::Receive {
            image: reference.written.clone(),
            what: what.into(),
            source,
        })?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(mismatch(format!("at most {limit} bytes"), "more".into()));
        }
    }
    if size.is_some_and(|size| size != bytes.len() as u64) {
        return Err(mismatch(format!("{limit} bytes"), format!("{} bytes", bytes.len())));
    }
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(mismatch(digest.to_string(), found.to_string()));
    }
    Ok(bytes)
}

/// Unpacks a layer from the wire into `folder`, checks both of its digests, and syncs it.
pub(super) fn unpack_to(
    image: &str,
    wire: impl Read,
    layer: &Descriptor,
    diff_id: Digest,
    folder: &Path,
) -> Result<(), ImageError> {
    fs::create_dir(folder).map_err(disk("create folder", folder))?;
    let what = || format!("layer {}", layer.digest);
    let mismatch =
        |expected: String, found: String| ImageError::Mismatch { image: image.into(), what: what(), expected, found };
    let receive = |source| ImageError::Receive { image: image.into(), what: what(), source };
    let mut compressed = HashingReader::new(wire, layer.size);
    let unpacked = {
        let mut buffered = BufReader::with_capacity(64 << 10, &mut compressed);
        let magic = buffered.fill_buf().map_err(receive)?;
        let plain: Box<dyn Read + '_> = if magic.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Box::new(zstd::stream::read::Decoder::with_buffer(buffered).map_err(receive)?)
        } else {
            Box::new(buffered)
        };
        let mut plain = HashingReader::new(plain, MAX_LAYER_BYTES);
        match unpack_layer(&mut plain, folder) {
            Ok(()) => plain.finish().map_err(UnpackError::Archive),
            Err(error) => Err(error),
        }
    };
    // A damaged transfer shows as nonsense in the archive: name the damage, not the nonsense.
    if let Err(source) = &unpacked
        && source.io_source().is_some_and(|io| io.kind() == io::ErrorKind::StorageFull)
    {
        return unpacked.map(drop).map_err(|source| ImageError::Unpack {
            image: image.into(),
            layer: layer.digest,
            source,
        });
    }
    let (found, size) = compressed.finish().map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => mismatch(format!("{} bytes", layer.size), "more".into()),
        _ => receive(error),
    })?;
    if size != layer.size {
        return Err(mismatch(format!("{} bytes", layer.size), format!("{size} bytes")));
    }
    if found != layer.digest {
        return Err(mismatch(layer.digest.to_string(), found.to_string()));
    }
    let (found, _) =
        unpacked.map_err(|source| ImageError::Unpack { image: image.into(), layer: layer.digest, source })?;
    if found != diff_id {
        return Err(mismatch(format!("{diff_id} after decompression"), found.to_string()));
    }
    // The rename that follows must not reach the disk before the files do.
    let root = fs::File::open(folder).map_err(disk("open", folder))?;
    rustix::fs::syncfs(&root).map_err(|source| ImageError::Disk {
        operation: "sync",
        path: folder.to_owned(),
        source: source.into(),
    })
}
