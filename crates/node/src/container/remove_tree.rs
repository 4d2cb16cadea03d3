//! Removes folder trees of untrusted shape.
//!
//! `std::fs::remove_dir_all` recurses and holds a descriptor for each level, so a tree that is deep enough ends the process. Here a
//! folder inside a folder is first moved up to the root of the tree, so neither stack nor descriptors grow with the depth, and no path
//! is longer than one name.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Makes the names of folders on their way out unique in this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Removes `path` and everything in it without following links. An absent path is fine. Blocking.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match openat(CWD, path, FOLDER, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(CWD, path, AtFlags::empty())?),
        Err(error) => return Err(error.into()),
    };
    empty(&root)?;
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything in the folder `root`.
pub(super) fn empty(root: &OwnedFd) -> io::Result<()> {
    // Folders that are moved up may or may not be seen by the pass that moved them.
    while pass(root, |name| {
        let folder = openat(root, name, FOLDER, Mode::empty())?;
        pass(&folder, |inner| move_up(&folder, inner, root))?;
        Ok(unlinkat(root, name, AtFlags::REMOVEDIR)?)
    })? {}
    Ok(())
}

/// Removes the files in `folder` and does `with_folder` for each folder in it; returns whether there was anything.
fn pass(folder: &OwnedFd, mut with_folder: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<bool> {
    let mut found = false;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        found = true;
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            kind => kind,
        };
        if kind == FileType::Directory {
            with_folder(name)?;
        } else {
            unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(found)
}

fn move_up(from: &OwnedFd, name: &CStr, root: &OwnedFd) -> io::Result<()> {
    loop {
        let free = format!(".removing-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        match renameat_with(from, name, root, free.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_goes_without_what_its_links_name() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join(".removing-0/x")).unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        fs::write(outer.path().join("kept"), "").unwrap();
        std::os::unix::fs::symlink(outer.path(), tree.join("a/b/link")).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outer.path().join("kept").exists());
        remove_tree(&outer.path().join("kept")).unwrap();
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
    }

    /// More levels than the stack of the thread has room for frames.
    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut folder = openat(CWD, &tree, FOLDER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&folder, "d", Mode::from_raw_mode(0o700)).unwrap();
            folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
        }
        drop(folder);
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let removed = small.spawn({
            let tree = tree.clone();
            move || remove_tree(&tree)
        });
        removed.unwrap().join().unwrap().unwrap();
        assert!(!tree.exists());
    }
}
