//! Unpacks one image layer into a folder that overlayfs can use as a lower layer.
//!
//! A layer is a tenant's file: nothing in it may reach outside the folder. Every path is resolved by the kernel with
//! `openat2(RESOLVE_IN_ROOT)` relative to the folder, so a link in the layer, however made, stays in it; `..` in a
//! name is refused outright, and so are device nodes. What a layer says about lower layers (whiteouts in the style of
//! aufs) becomes what overlayfs expects: a character device 0/0, or the attribute `trusted.overlay.opaque`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

/// The attribute that makes overlayfs hide a folder's lower layers.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// aufs kept its own book-keeping under names with this prefix; it means nothing to others.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Entries in one layer. Too low refuses honest images (the largest seen have some 300,000); too high lets a
/// few-megabyte layer use up the file system's inodes.
const MAX_ENTRIES: u64 = 2_000_000;

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive or the folder could not be read or written.
    #[error("unpack layer entry {entry:?}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive itself is broken.
    #[error("read layer archive")]
    Archive(#[source] io::Error),
    /// The layer holds something that is not allowed.
    #[error("layer entry {entry:?} {problem}")]
    Refused {
        /// Its name in the archive.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Too many entries.
    #[error("layer has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
}

impl UnpackError {
    /// The innermost I/O error: callers look there for "connection lost" and "too large".
    pub fn io_source(&self) -> Option<&io::Error> {
        match self {
            Self::Entry { source, .. } | Self::Archive(source) => Some(source),
            _ => None,
        }
    }
}

/// Unpacks the tar archive `reader` into the existing, empty folder `into`.
pub fn unpack_layer(reader: impl Read, into: &Path) -> Result<(), UnpackError> {
    let root = openat(CWD, into, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| UnpackError::Archive(source.into()))?;
    let mut unpacker = Unpacker { root, parent: None, folder_times: Vec::new() };
    let mut archive = tar::Archive::new(reader);
    let entries = archive.entries().map_err(UnpackError::Archive)?;
    for (index, entry) in entries.enumerate() {
        if index as u64 >= MAX_ENTRIES {
            return Err(UnpackError::TooManyEntries);
        }
        let mut entry = entry.map_err(UnpackError::Archive)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        unpacker.entry(&mut entry).map_err(|problem| match problem {
            Problem::Io(source) => UnpackError::Entry { entry: name, source },
            Problem::Refused(problem) => UnpackError::Refused { entry: name, problem },
        })?;
    }
    unpacker.set_folder_times().map_err(UnpackError::Archive)
}

enum Problem {
    Io(io::Error),
    Refused(&'static str),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

struct Unpacker {
    root: OwnedFd,
    /// The folder of the last entry: archives list a folder's files together.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Set at the end, as every file made in a folder changes the folder's time.
    folder_times: Vec<(PathBuf, Timestamps)>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Problem> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let path = relative_path(&entry.path_bytes())?;
        let header = entry.header();
        let owner = (id(header.uid()?)?, id(header.gid()?)?);
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let times = timestamps(header.mtime()?);
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The archive's own "./" entry describes the root folder.
            if kind.is_dir() {
                fchown(&self.root, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
                fchmod(&self.root, mode)?;
                self.folder_times.push((PathBuf::from("."), times));
            }
            return Ok(());
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        if name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&parent_path, &name);
        }
        if kind.is_character_special() || kind.is_block_special() {
            return Err(Problem::Refused("is a device node: images may not contain them"));
        }
        let link = entry.link_name_bytes().map(|bytes| bytes.into_owned());
        let was_whited_out = self.make_room(&parent_path, &name, kind.is_dir())?;
        let parent = self.open_folder(&parent_path)?;
        if kind.is_dir() {
            match mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let folder = openat(parent, &name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            set_owner_and_mode(&folder, owner, mode)?;
            if was_whited_out {
                fsetxattr(&folder, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
            }
            self.folder_times.push((path, times));
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(parent, &name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = std::fs::File::from(file);
            io::copy(entry, &mut file)?;
            set_owner_and_mode(&file, owner, mode)?;
            futimens(&file, &times)?;
        } else if kind.is_hard_link() {
            let target = relative_path(&link.ok_or(Problem::Refused("is a hard link to nothing"))?)?;
            let target_name = target.file_name().ok_or(Problem::Refused("is a hard link to the root folder"))?;
            let target_parent = self.resolve(target.parent().unwrap_or(Path::new("")))?;
            let parent = self.open_folder(&parent_path)?;
            linkat(&target_parent, target_name, parent, &name, AtFlags::empty())?;
        } else if kind.is_symlink() {
            // A symlink may say anything: it is only ever resolved inside the container or with RESOLVE_IN_ROOT.
            let target = OsString::from_vec(link.ok_or(Problem::Refused("is a symbolic link to nothing"))?);
            symlinkat(&target, parent, &name)?;
            chownat(
                parent,
                &name,
                Some(Uid::from_raw(owner.0)),
                Some(Gid::from_raw(owner.1)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            utimensat(parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        } else if kind.is_fifo() {
            mknodat(parent, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            chownat(parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            chmodat(parent, &name, mode, AtFlags::empty())?;
        } else {
            return Err(Problem::Refused("is of a kind that layers cannot contain"));
        }
        Ok(())
    }

    /// Turns `.wh.NAME` and `.wh..wh..opq` into what overlayfs understands. They speak of lower layers only: what
    /// this layer itself holds stays.
    fn whiteout(&mut self, parent_path: &Path, name: &OsStr) -> Result<(), Problem> {
        let parent = self.open_folder(parent_path)?;
        if name.as_bytes() == OPAQUE_MARKER {
            fsetxattr(parent, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
            return Ok(());
        }
        if name.as_bytes().starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT_PREFIX.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Problem::Refused("is a whiteout of nothing"));
        }
        match mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let stat = statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let folder = openat(parent, hidden, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                    fsetxattr(folder, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what an earlier entry of this layer left at the name; says whether it was a whiteout.
    fn make_room(&mut self, parent_path: &Path, name: &OsStr, for_folder: bool) -> Result<bool, Problem> {
        let parent = self.open_folder(parent_path)?;
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if for_folder => Ok(false),
            FileType::Directory => Err(Problem::Refused("replaces a folder of the same layer")),
            kind => {
                unlinkat(parent, name, AtFlags::empty())?;
                self.parent = None;
                Ok(kind == FileType::CharacterDevice)
            }
        }
    }

    /// Opens a folder of the layer, following the layer's links but never out of it.
    fn resolve(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, FOLDER, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Like `resolve`, but makes what is missing, and caches the answer.
    fn open_folder(&mut self, path: &Path) -> Result<&OwnedFd, Problem> {
        if self.parent.as_ref().is_none_or(|(cached, _)| cached != path) {
            let folder = match self.resolve(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_folders(path)?,
                other => other?,
            };
            self.parent = Some((path.to_owned(), folder));
        }
        match &self.parent {
            Some((_, folder)) => Ok(folder),
            None => Err(Problem::Refused("has no parent folder")),
        }
    }

    fn make_folders(&self, path: &Path) -> Result<OwnedFd, Problem> {
        let mut prefix = PathBuf::new();
        let mut folder = self.resolve(&prefix)?;
        for name in path.iter() {
            prefix.push(name);
            folder = match self.resolve(&prefix) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let hidden = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice,
                        Err(_) => false,
                    };
                    if hidden {
                        unlinkat(&folder, name, AtFlags::empty())?;
                    }
                    mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
                    let made = openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                    // mkdir's mode is subject to the umask.
                    fchmod(&made, Mode::from_raw_mode(0o755))?;
                    if hidden {
                        fsetxattr(&made, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
                    }
                    made
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(folder)
    }

    fn set_folder_times(&self) -> io::Result<()> {
        for (path, times) in self.folder_times.iter().rev() {
            match self.resolve(path) {
                Ok(folder) => futimens(&folder, times)?,
                // A later entry put a link in its place that leads nowhere.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The entry's path without leading `/` and `.`; a path with `..` is refused.
fn relative_path(bytes: &[u8]) -> Result<PathBuf, Problem> {
    let mut path = PathBuf::new();
    for part in bytes.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Problem::Refused("leads out of its folder with ..")),
            part if part.contains(&0) => return Err(Problem::Refused("has a NUL byte in its name")),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

fn id(raw: u64) -> Result<u32, Problem> {
    // The highest number means "leave it" to chown.
    u32::try_from(raw).ok().filter(|id| *id != u32::MAX).ok_or(Problem::Refused("has an owner that is out of range"))
}

fn timestamps(seconds: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// The owner first: changing it clears the set-user-id bits.
fn set_owner_and_mode(file: impl std::os::fd::AsFd, owner: (u32, u32), mode: Mode) -> Result<(), Errno> {
    fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    fchmod(&file, mode)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
