//! Properties that hold for any bytes that reach this host from users, as functions of bytes: called by the fuzz targets of the
//! folder
//! `fuzz`, and in tests by every kept input in `fuzz/corpus`. A function returns where the input is refused as it should be, and panics
//! where a property is broken.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::container::remove_tree::remove_tree;
use crate::container::unpack::{Limits, unpack_layer};

/// Small, so that inputs that meet them are found.
const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 1000, room: u64::MAX };
/// Levels of folders that a layer may have.
const MAX_DEPTH: usize = 256;
/// An error ends up in a status and in a log.
const MAX_MESSAGE: usize = 1024;

/// Unpacks `data` as an image layer.
///
/// # Panics
/// If something was written outside of the layer's folder, a limit was passed, an error is too long, or the tree cannot be removed.
pub fn layer(data: &[u8]) {
    let outer = std::env::temp_dir().join(format!("evroc-fuzz-{}", uuid::Uuid::new_v4().simple()));
    let folder = outer.join("layer");
    std::fs::create_dir_all(&folder).expect("a folder for the layer");
    let result = unpack_layer(data, &folder, LIMITS);
    let beside: Vec<_> =
        std::fs::read_dir(&outer).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    let measured = measure(&folder);
    remove_tree(&outer).expect("remove the unpacked tree");
    assert_eq!(beside, ["layer"], "written beside the folder");
    assert!(measured.depth <= MAX_DEPTH, "{} levels", measured.depth);
    assert!(measured.bytes <= LIMITS.bytes, "{} bytes", measured.bytes);
    match result {
        Ok(unpacked) => assert!(unpacked.bytes <= LIMITS.bytes && unpacked.entries <= LIMITS.entries, "{unpacked:?}"),
        Err(error) => assert!(error.to_string().len() <= MAX_MESSAGE, "{} bytes of message", error.to_string().len()),
    }
}

#[derive(Default)]
struct Measured {
    depth: usize,
    bytes: u64,
}

/// Walks a tree of bounded depth. Hard links count once.
fn measure(folder: &Path) -> Measured {
    let mut measured = Measured::default();
    let mut seen = std::collections::HashSet::new();
    let mut ahead: Vec<(PathBuf, usize)> = vec![(folder.to_owned(), 0)];
    while let Some((path, depth)) = ahead.pop() {
        measured.depth = measured.depth.max(depth);
        // Not root's, and closed by the layer: nothing more can be checked.
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                if depth <= MAX_DEPTH {
                    ahead.push((entry.path(), depth + 1));
                }
            } else if meta.is_file() && seen.insert(meta.ino()) {
                measured.bytes += meta.len();
            }
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::attacks;

    fn kept() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/layer")
    }

    /// `UPDATE=1` writes the attacks into the corpus.
    #[test]
    fn every_kept_layer_keeps_the_properties() {
        for (name, wire, _) in attacks::all() {
            let path = kept().join(name);
            if std::env::var_os("UPDATE").is_some() {
                std::fs::create_dir_all(kept()).unwrap();
                std::fs::write(&path, wire).unwrap();
            }
            assert!(path.exists(), "{} is not kept: UPDATE=1 writes it", path.display());
        }
        for entry in std::fs::read_dir(kept()).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            layer(&std::fs::read(&path).unwrap());
        }
    }
}
