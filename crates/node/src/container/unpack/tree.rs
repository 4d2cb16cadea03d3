//! Writes the entries of a layer into a folder that overlayfs can use as a lower layer.
//!
//! Nothing in a layer may reach outside the folder: every path is resolved by [`super::resolve`], and `..` in a name is refused.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens, linkat,
    mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::Limits;
use super::archive::{Archive, Entry, MAX_NAME};
use super::problem::Problem;
use super::resolve::{FOLDER, Folder, Missing, check_depth, open_folder, reopen};
use crate::container::remove_tree;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// aufs kept its own book-keeping under names with this prefix; it means nothing to others.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// The longest name in a folder: the kernel's NAME_MAX.
const MAX_FILE_NAME: usize = 255;
/// Bytes of all paths of opaque folders of a layer. Honest layers have a handful; the paths have to be passed on.
const MAX_OPAQUE_BYTES: usize = 1 << 20;
/// Paths of left-out entries that are remembered, so that a hard link to one is left out as well.
const MAX_LEFT_OUT: usize = 4096;

/// The folder that a layer is written to.
pub(super) struct Tree {
    root: OwnedFd,
    /// The folder of the last entry: archives list a folder's files together.
    parent: Option<(PathBuf, Folder)>,
    /// Set at the end, as every file made in a folder changes the folder's time.
    folder_times: Vec<(PathBuf, Timestamps)>,
    opaque: BTreeSet<PathBuf>,
    opaque_bytes: usize,
    left_out: HashSet<PathBuf>,
    bytes: u64,
    limits: Limits,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, limits: Limits) -> Self {
        Self {
            root,
            parent: None,
            folder_times: Vec::new(),
            opaque: BTreeSet::new(),
            opaque_bytes: 0,
            left_out: HashSet::new(),
            bytes: 0,
            limits,
        }
    }

    /// Writes one entry, whose data is read from the archive.
    pub(super) fn write<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), Problem> {
        let path = relative_path(&entry.path)?;
        let kind = entry.kind;
        let owner = (id(entry.uid)?, id(entry.gid)?);
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        let times = timestamps(entry.mtime);
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The archive's own "./" entry describes the root folder.
            if kind.is_dir() {
                set_owner_and_mode(&self.root, owner, mode)?;
                self.folder_times.push((PathBuf::new(), times));
            }
            return Ok(());
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        if name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&parent_path, &name);
        }
        let replaced_whiteout = self.make_room(&parent_path, &name, kind.is_dir())?;
        if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            // Container runtimes make the devices that a container has; nothing needs a FIFO of an image.
            if self.left_out.len() < MAX_LEFT_OUT {
                self.left_out.insert(path);
            }
            return Ok(());
        }
        let left = self.limits.bytes.saturating_sub(self.bytes);
        let room = self.limits.room.saturating_sub(self.bytes);
        let parent = self.open_parent(&parent_path)?;
        if kind.is_dir() {
            let real = parent.path.join(&name);
            check_depth(&real)?;
            match mkdirat(&parent.fd, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let folder = openat(&parent.fd, &name, FOLDER, Mode::empty())?;
            set_owner_and_mode(&folder, owner, mode)?;
            if replaced_whiteout {
                self.make_opaque(real.clone())?;
            }
            self.folder_times.push((real, times));
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            if entry.size > left {
                return Err(Problem::TooLarge);
            }
            if entry.size > room {
                return Err(Problem::NoRoom);
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&parent.fd, &name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(file);
            write_data(entry, archive, &mut file)?;
            set_owner_and_mode(&file, owner, mode)?;
            futimens(&file, &times)?;
            self.bytes += entry.size;
        } else if kind.is_hard_link() {
            self.hard_link(entry, &parent_path, &name)?;
        } else if kind.is_symlink() {
            // A symlink may say anything: it is only ever resolved inside the container or below the layer's root.
            let target = entry.link.as_deref().filter(|target| !target.is_empty());
            let target = target.ok_or(Problem::Refused("is a symbolic link to nothing"))?;
            if target.len() as u64 >= MAX_NAME {
                return Err(Problem::Refused("is a link to a name of more than 4096 bytes"));
            }
            symlinkat(OsStr::from_bytes(target), &parent.fd, &name)?;
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            chownat(&parent.fd, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(&parent.fd, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        } else {
            return Err(Problem::Refused("is of a kind that layers cannot contain"));
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, parent_path: &Path, name: &OsStr) -> Result<(), Problem> {
        let target = entry.link.as_deref().ok_or(Problem::Refused("is a hard link to nothing"))?;
        let target = relative_path(target)?;
        if self.left_out.contains(&target) {
            return Ok(());
        }
        let target_name = target.file_name().ok_or(Problem::Refused("is a hard link to the root folder"))?.to_owned();
        let dangling = Problem::Refused("is a hard link to a file that the layer does not have");
        let target_parent = match open_folder(&self.root, target.parent().unwrap_or(Path::new("")), Missing::Fail) {
            Err(Problem::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Err(dangling),
            other => other?,
        };
        let parent = self.open_parent(parent_path)?;
        match linkat(&target_parent.fd, &target_name, &parent.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(dangling),
            Err(Errno::PERM) => Err(Problem::Refused("is a hard link to a folder")),
            other => Ok(other?),
        }
    }

    /// Turns `.wh.NAME` and `.wh..wh..opq` into the forms of overlayfs. They concern lower layers only: what
    /// this layer itself holds stays.
    fn whiteout(&mut self, parent_path: &Path, name: &OsStr) -> Result<(), Problem> {
        if name.as_bytes() == OPAQUE_MARKER {
            let path = self.open_parent(parent_path)?.path.clone();
            return self.make_opaque(path);
        }
        if name.as_bytes().starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT_PREFIX.len()..]).to_owned();
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Problem::Refused("is a whiteout of nothing"));
        }
        let parent = self.open_parent(parent_path)?;
        match mknodat(&parent.fd, &hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let stat = statat(&parent.fd, &hidden, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let path = parent.path.join(&hidden);
                    self.make_opaque(path)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what an earlier entry of this layer left at the name; returns whether it was a whiteout.
    fn make_room(&mut self, parent_path: &Path, name: &OsStr, for_folder: bool) -> Result<bool, Problem> {
        let parent = self.open_parent(parent_path)?;
        let stat = match statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if for_folder => Ok(false),
            FileType::Directory => {
                let folder = openat(&parent.fd, name, FOLDER, Mode::empty())?;
                remove_tree::empty(&folder).map_err(Problem::Io)?;
                unlinkat(&parent.fd, name, AtFlags::REMOVEDIR)?;
                self.parent = None;
                Ok(false)
            }
            kind => {
                unlinkat(&parent.fd, name, AtFlags::empty())?;
                self.parent = None;
                Ok(kind == FileType::CharacterDevice)
            }
        }
    }

    /// Opens the folder of an entry, making missing ones, and keeps it for the next entry.
    fn open_parent(&mut self, path: &Path) -> Result<&Folder, Problem> {
        if self.parent.as_ref().is_none_or(|(cached, _)| cached != path) {
            let folder = open_folder(&self.root, path, Missing::Make)?;
            for replaced in &folder.replaced_whiteouts {
                self.make_opaque(replaced.clone())?;
            }
            self.parent = Some((path.to_owned(), folder));
        }
        match &self.parent {
            Some((_, folder)) => Ok(folder),
            None => Err(Problem::Refused("has no parent folder")),
        }
    }

    fn make_opaque(&mut self, path: PathBuf) -> Result<(), Problem> {
        self.opaque_bytes += path.as_os_str().len() + 1;
        if self.opaque_bytes > MAX_OPAQUE_BYTES {
            return Err(Problem::Refused("is one opaque folder too many"));
        }
        self.opaque.insert(path);
        Ok(())
    }

    /// Sets the times of folders; returns bytes of files and the opaque folders.
    pub(super) fn finish(self) -> Result<(u64, BTreeSet<PathBuf>), Problem> {
        for (path, times) in self.folder_times.iter().rev() {
            match reopen(&self.root, path) {
                Ok(folder) => futimens(&folder, times)?,
                // A later entry put something else in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((self.bytes, self.opaque))
    }
}

/// Writes a file's data; holes stay holes.
fn write_data<R: Read>(entry: &Entry, archive: &mut Archive<R>, file: &mut File) -> Result<(), Problem> {
    let Some(segments) = &entry.segments else { return copy(archive, file, entry.size) };
    for (offset, length) in segments {
        file.seek(SeekFrom::Start(*offset)).map_err(Problem::Io)?;
        copy(archive, file, *length)?;
    }
    file.set_len(entry.size).map_err(Problem::Io)
}

/// Like `io::copy`, but keeps errors of reading and writing apart.
fn copy<R: Read>(archive: &mut Archive<R>, file: &mut File, length: u64) -> Result<(), Problem> {
    let mut buffer = [0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match archive.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(Problem::Unreadable(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                io::Write::write_all(file, &buffer[..count]).map_err(Problem::Io)?;
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Problem::Unreadable(error)),
        }
    }
    Ok(())
}

/// The entry's path without leading `/` and `.`; a path with `..` is refused.
fn relative_path(bytes: &[u8]) -> Result<PathBuf, Problem> {
    if bytes.len() as u64 > MAX_NAME {
        return Err(Problem::Refused("has a name of more than 4096 bytes"));
    }
    let mut path = PathBuf::new();
    for part in bytes.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Problem::Refused("leads out of its folder with ..")),
            part if part.contains(&0) => return Err(Problem::Refused("has a NUL byte in its name")),
            part if part.len() > MAX_FILE_NAME => {
                return Err(Problem::Refused("has a part of more than 255 bytes in its name"));
            }
            part => path.push(OsString::from_vec(part.to_owned())),
        }
    }
    Ok(path)
}

fn id(raw: u64) -> Result<u32, Problem> {
    // The highest number means "leave it" to chown.
    u32::try_from(raw).ok().filter(|id| *id != u32::MAX).ok_or(Problem::Refused("has an owner that is out of range"))
}

fn timestamps(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets the owner first: changing it clears the set-user-id bits.
fn set_owner_and_mode(file: impl std::os::fd::AsFd, owner: (u32, u32), mode: Mode) -> Result<(), Errno> {
    fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    fchmod(&file, mode)
}
