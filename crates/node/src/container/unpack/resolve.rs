//! Finds folders of a layer without ever leaving it.
//!
//! Paths are walked one name at a time and links are followed by hand, below the root only: the process may run unconfined in tests,
//! and the real depth of a folder, after links, has to be known.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, mkdirat, openat, readlinkat, statat, unlinkat};
use rustix::io::Errno;

use super::problem::Problem;

pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// Levels of folders below the root of a layer. Lower refuses honest images (node_modules reach some 30); higher makes every walk
/// longer, here and in the container.
const MAX_DEPTH: usize = 256;
/// Links on the way to one folder, as the kernel counts them (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Names on the way to one folder, those in links included.
const MAX_STEPS: usize = 4096;

/// A folder of the layer.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    /// Its path below the root: real names only, no links.
    pub(super) path: PathBuf,
    /// Folders on the way that replaced a whiteout of this layer: they hide the content of lower layers.
    pub(super) replaced_whiteouts: Vec<PathBuf>,
}

/// The treatment of a missing folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Fail,
}

/// Opens the folder `path` below `root`, following the layer's own links.
pub(super) fn open_folder(root: &OwnedFd, path: &Path, missing: Missing) -> Result<Folder, Problem> {
    let mut walk = Walk { root, folder: reopen(root, Path::new(""))?, path: PathBuf::new(), replaced: Vec::new() };
    let mut ahead: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = ahead.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(Problem::Refused("is behind links that are too long"));
        }
        match name.as_bytes() {
            b"" | b"." => {}
            b".." => walk.up()?,
            _ => {
                if let Some(target) = walk.down(&name, missing)? {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Problem::Refused("is behind more than 40 links"));
                    }
                    if target.first() == Some(&b'/') {
                        walk.return_to_root()?;
                    }
                    let names = target.split(|byte| *byte == b'/').rev();
                    ahead.extend(names.map(|name| OsString::from_vec(name.to_owned())));
                    if ahead.len() > MAX_STEPS {
                        return Err(Problem::Refused("is behind links that are too long"));
                    }
                }
            }
        }
    }
    Ok(Folder { fd: walk.folder, path: walk.path, replaced_whiteouts: walk.replaced })
}

/// Opens a folder by its real path, without following links.
pub(super) fn reopen(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut folder = openat(root, ".", FOLDER, Mode::empty())?;
    for name in path {
        folder = openat(&folder, name, FOLDER, Mode::empty())?;
    }
    Ok(folder)
}

struct Walk<'a> {
    root: &'a OwnedFd,
    folder: OwnedFd,
    path: PathBuf,
    replaced: Vec<PathBuf>,
}

impl Walk<'_> {
    fn return_to_root(&mut self) -> Result<(), Errno> {
        self.path.clear();
        self.folder = reopen(self.root, &self.path)?;
        Ok(())
    }

    fn up(&mut self) -> Result<(), Errno> {
        self.path.pop();
        self.folder = reopen(self.root, &self.path)?;
        Ok(())
    }

    /// Enters a folder; where the name is a link, returns its target instead.
    fn down(&mut self, name: &OsStr, missing: Missing) -> Result<Option<Vec<u8>>, Problem> {
        let folder = match openat(&self.folder, name, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) if missing == Missing::Make => self.make(name)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => {
                        return Ok(Some(readlinkat(&self.folder, name, Vec::new())?.into_bytes()));
                    }
                    // The only devices here are whiteouts that an earlier entry made.
                    FileType::CharacterDevice if missing == Missing::Make => {
                        unlinkat(&self.folder, name, AtFlags::empty())?;
                        let made = self.make(name)?;
                        self.replaced.push(self.path.join(name));
                        made
                    }
                    _ => return Err(Problem::Refused("is inside something that is not a folder")),
                }
            }
            Err(error) => return Err(error.into()),
        };
        self.path.push(name);
        check_depth(&self.path)?;
        self.folder = folder;
        Ok(None)
    }

    fn make(&self, name: &OsStr) -> Result<OwnedFd, Problem> {
        check_depth(&self.path.join(name))?;
        mkdirat(&self.folder, name, Mode::from_raw_mode(0o755))?;
        let made = openat(&self.folder, name, FOLDER, Mode::empty())?;
        // mkdir's mode is subject to the umask.
        fchmod(&made, Mode::from_raw_mode(0o755))?;
        Ok(made)
    }
}

/// Refuses a folder that is too deep.
pub(super) fn check_depth(path: &Path) -> Result<(), Problem> {
    if path.iter().count() > MAX_DEPTH {
        return Err(Problem::Refused("is more than 256 folders deep"));
    }
    Ok(())
}
