//! Whether a hypervisor has a file open, by its image lock.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// QEMU locks single bytes of an image that it has open: from 100 on for its own operations, from 200 on for those it denies to
/// others (`RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE` in its `block/file-posix.c`). The lock lasts while the process is
/// stopped, and ends with it.
const FIRST_BYTE: i64 = 100;
/// Both ranges.
const BYTES: i64 = 200;

/// Whether some process has the image lock of a file. Takes no lock.
pub(super) fn is_locked(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: FIRST_BYTE,
        l_len: BYTES,
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid `struct flock` for the length of the call, with `l_pid` 0 as F_OFD_GETLK demands, and the descriptor is open.
    let outcome = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_like_that_of_qemu_is_seen_until_its_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, "x").unwrap();
        assert!(!is_locked(&path).unwrap());
        let held = super::super::tests::hold(&path);
        assert!(is_locked(&path).unwrap());
        drop(held);
        assert!(!is_locked(&path).unwrap());
    }
}
