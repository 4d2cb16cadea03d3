//! One layer from its compressed bytes to a folder, within limits.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, Mode, openat};

use super::archive::{Archive, ArchiveError};
use super::problem::Problem;
use super::resolve::FOLDER;
use super::tree::Tree;
use super::{Limits, UnpackError, Unpacked};
use crate::container::digest::HashingReader;
use crate::text::clip_name;

/// The window of zstd, as a power of two: the largest that the format requires of every decoder (128 MiB).
const ZSTD_WINDOW_LOG: u32 = 27;
/// The factor by which an archive may be larger than its files: headers and padding.
const BYTES_PER_ENTRY: u64 = 4096;

/// Unpacks the layer `wire` (plain, gzip or zstd) into the existing, empty folder `into`.
pub fn unpack_layer(wire: impl Read, into: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let unreadable = |error: io::Error| UnpackError::Unreadable(format!("read the layer: {error}"));
    let mut buffered = BufReader::with_capacity(64 << 10, wire);
    let magic = buffered.fill_buf().map_err(unreadable)?;
    let plain: Box<dyn Read + '_> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).map_err(unreadable)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(unreadable)?;
        Box::new(decoder)
    } else {
        Box::new(buffered)
    };
    let archive_limit = limits.bytes.saturating_add(limits.entries.saturating_mul(BYTES_PER_ENTRY));
    let mut plain = HashingReader::new(plain, archive_limit);
    let (entries, tree) = unpack_archive(&mut plain, into, limits)?;
    let (diff_id, _) = plain.finish().map_err(|error| failed_read(&error))?;
    let (bytes, opaque) = tree.finish().map_err(|problem| of_entry(problem, b"."))?;
    let opaque = opaque.iter().map(|path| STANDARD.encode(path.as_os_str().as_bytes())).collect();
    Ok(Unpacked { diff_id, bytes, entries, opaque })
}

fn unpack_archive(plain: impl Read, into: &Path, limits: Limits) -> Result<(u64, Tree), UnpackError> {
    let root = openat(CWD, into, FOLDER, Mode::empty())
        .map_err(|error| UnpackError::host("open the folder for the layer", &error.into()))?;
    let mut tree = Tree::new(root, limits);
    let mut archive = Archive::new(plain);
    let mut entries = 0;
    loop {
        let entry = archive.next(|| {
            entries += 1;
            match entries > limits.entries {
                true => Err(ArchiveError::Refused { name: Vec::new(), problem: TOO_MANY }),
                false => Ok(()),
            }
        });
        let entry = match entry {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok((entries, tree)),
            Err(ArchiveError::Read(error)) => return Err(failed_read(&error)),
            Err(ArchiveError::Refused { problem: TOO_MANY, .. }) => {
                return Err(UnpackError::TooLarge(format!(
                    "the image has more than {} entries in its layers",
                    limits.entries
                )));
            }
            Err(ArchiveError::Refused { name, problem }) => {
                return Err(UnpackError::Refused(format!("layer entry {:?} {problem}", clip_name(&name))));
            }
        };
        tree.write(&entry, &mut archive).map_err(|problem| of_entry(problem, &entry.path))?;
    }
}

const TOO_MANY: &str = "is one too many";

fn failed_read(error: &io::Error) -> UnpackError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => UnpackError::TooLarge(format!("the unpacked layer is too large: {error}")),
        _ => UnpackError::Unreadable(format!("read the layer's archive: {error}")),
    }
}

fn of_entry(problem: Problem, name: &[u8]) -> UnpackError {
    let name = clip_name(name);
    match problem {
        Problem::Io(error) => UnpackError::host(&format!("write layer entry {name:?}"), &error),
        Problem::Unreadable(error) => failed_read(&error),
        Problem::Refused(problem) => UnpackError::Refused(format!("layer entry {name:?} {problem}")),
        Problem::NoRoom => UnpackError::DiskFull(format!("the host's disk has no room for layer entry {name:?}")),
        Problem::TooLarge => {
            UnpackError::TooLarge(format!("layer entry {name:?} makes the image larger than it may be when unpacked"))
        }
    }
}
