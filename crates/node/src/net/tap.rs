//! Taps: the host's end of a machine's network card.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Makes the tap `name` in the calling thread's namespace and returns its descriptor: when the last copy is
/// closed (the hypervisor's), the tap ends. It comes up down. `ResourceBusy` if a living process holds it.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: `request` is a zeroed ifreq into which a NUL-terminated name is copied; the ioctl reads and writes only it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is too long for a link")));
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        // VNET_HDR: packets carry checksum and segmentation hints, so that the guest's card can leave both to the host.
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        if libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(file.into())
}
