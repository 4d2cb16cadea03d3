//! One socket for all taps of a VPC.
//!
//! The kernel reports the link of each request (`IP_PKTINFO`), and the answer leaves by that link. So nothing has to be done when taps
//! come and go, and no guest gets the answer for another one.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::task::JoinHandle;

use super::packet::Request;
use super::{Lease, answer};
use crate::net::netns::Netns;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Larger than any Ethernet frame carries.
const MAX_MESSAGE: usize = 2048;

/// Leases by the name of the tap.
pub type Leases = HashMap<String, Lease>;

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct DhcpServer {
    leases: Arc<Mutex<Leases>>,
    task: JoinHandle<()>,
}

impl DhcpServer {
    /// Starts to answer in `netns` (blocking for a moment; call within a tokio runtime).
    pub fn start(netns: &Netns) -> io::Result<Self> {
        let socket = netns.run(open_socket).map_err(io::Error::other)??;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let leases = Arc::new(Mutex::new(Leases::new()));
        let task = tokio::spawn(serve(socket, leases.clone()));
        Ok(Self { leases, task })
    }

    /// Replaces the answers.
    pub fn set_leases(&self, leases: Leases) {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) = leases;
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: tokio::net::UdpSocket, leases: Arc<Mutex<Leases>>) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let received = socket.async_io(Interest::READABLE, || receive(socket.as_fd(), &mut buffer)).await;
        let (length, link) = match received {
            Ok(received) => received,
            Err(error) => {
                // For example ENETDOWN when a tap is removed: the next request is not affected.
                tracing::debug!(%error, "receive a DHCP request");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        let Some(request) = buffer.get(..length).and_then(Request::parse) else { continue };
        let Ok(name) = link_name(socket.as_raw_fd(), link) else { continue };
        let lease = leases.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let Some(reply) = lease.as_ref().and_then(|lease| answer(&request, lease)) else {
            tracing::debug!(link = name, "ignores a DHCP request");
            continue;
        };
        let bytes = reply.to_bytes(&request);
        // A guest that has its address is reached by it; any other by broadcast, which on a tap reaches one machine.
        let has_it = lease.is_some_and(|lease| reply.client_address == lease.address);
        let to = if has_it { reply.client_address } else { Ipv4Addr::BROADCAST };
        let sent = socket
            .async_io(Interest::WRITABLE, || send(socket.as_fd(), &bytes, SocketAddrV4::new(to, CLIENT_PORT), link))
            .await;
        if let Err(error) = sent {
            tracing::debug!(%error, link = name, "send a DHCP answer");
        }
    }
}

fn open_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Room for one `in_pktinfo` with its header, aligned as headers must be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Receives a datagram: its length and the index of the link that it came in on.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, libc::c_int)> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the header points at a buffer and a control area of the lengths that it states, both alive.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled the control area and set its length; the macros stay within it, and the data of an IP_PKTINFO
    // header is an in_pktinfo.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::IPPROTO_IP && (*header).cmsg_type == libc::IP_PKTINFO {
                let info: libc::in_pktinfo = libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                return Ok((length as usize, info.ipi_ifindex));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel did not report the link of a datagram"))
}

/// Sends a datagram out of one link.
fn send(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddrV4, link: libc::c_int) -> io::Result<()> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero is a valid sockaddr_in and msghdr.
    let (mut address, mut message): (libc::sockaddr_in, libc::msghdr) = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = to.port().to_be();
    address.sin_addr.s_addr = u32::from(*to.ip()).to_be();
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of_val(&address) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    let size = size_of::<libc::in_pktinfo>() as libc::c_uint;
    // SAFETY: the control area has room for one header and an in_pktinfo (CMSG_SPACE is 32 on this platform, it has 64); `bytes` is
    // only read; everything outlives the call.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::IPPROTO_IP;
        (*header).cmsg_type = libc::IP_PKTINFO;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        let mut info: libc::in_pktinfo = std::mem::zeroed();
        info.ipi_ifindex = link;
        libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the name of a link in the socket's own namespace, independent of this thread's namespace.
fn link_name(socket: RawFd, index: libc::c_int) -> io::Result<String> {
    // SAFETY: `request` is a valid ifreq; the ioctl writes a NUL-terminated name into it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_ifru.ifru_ifindex = index;
        if libc::ioctl(socket, libc::SIOCGIFNAME, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        let name = std::ffi::CStr::from_ptr(request.ifr_name.as_ptr());
        Ok(name.to_string_lossy().into_owned())
    }
}
