//! Namespaces found by the processes that live in them: a hypervisor holds the descriptor of its tap, and the tap knows its namespace.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::links;
use super::netns::Netns;

/// Finds the namespaces of the taps that processes of this host hold open. Looks only at names that `is_wanted` accepts; several taps
/// can have one name, in namespaces of their own. A process that ends meanwhile is left out.
pub fn namespaces_of_taps(is_wanted: impl Fn(&str) -> bool) -> Vec<Netns> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            // The name that the device was opened by: in a hypervisor's own mount namespace it may be another path.
            let is_tun = fs::read_link(entry.path()).is_ok_and(|target| target.ends_with("net/tun"));
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).filter(|_| is_tun)
            else {
                continue;
            };
            let info = fs::read_to_string(process.path().join("fdinfo").join(fd.to_string())).unwrap_or_default();
            let Some(tap) = tap_name(&info).filter(|tap| is_wanted(tap)) else { continue };
            match namespace_of(pid, fd, tap) {
                Ok(netns) => found.push(netns),
                Err(error) => tracing::debug!(pid, tap, %error, "cannot find the namespace of a tap by its process"),
            }
        }
    }
    found
}

/// The link's name in the `fdinfo` of a tap.
fn tap_name(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("iff:")).map(str::trim)
}

fn namespace_of(pid: i32, fd: i32, tap: &str) -> io::Result<Netns> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
    let copy = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?;
    // SAFETY: the ioctl takes no argument; it returns a new descriptor without another owner, or a negative number.
    let namespace = unsafe {
        let number = libc::ioctl(copy.as_raw_fd(), libc::TUNGETDEVNETNS);
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(number)
    };
    let netns = Netns::from_fd(namespace, Path::new(&format!("/proc/{pid}/fd/{fd}")));
    // The process may have exchanged the descriptor since its name was read.
    let links = netns.run(links::list).map_err(io::Error::other)??;
    if links.contains_key(tap) { Ok(netns) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_tap_is_read_from_its_fdinfo() {
        assert_eq!(tap_name("pos:\t0\nflags:\t0104002\nmnt_id:\t21\niff:\ti1234tbbbbbbbb\n"), Some("i1234tbbbbbbbb"));
        assert_eq!(tap_name("pos:\t0\n"), None);
    }
}
