//! Takes over from a dead supervisor: its roles, which still serve, and the listening sockets that they hold.
//!
//! The new supervisor takes copies of the sockets out of the roles (`pidfd_getfd`), so that the ports are never closed, ends the roles in
//! order, and starts its own. Where the system does not allow taking descriptors, the roles end first and the ports are bound again.
//! Shims, guests and containers are not looked at here at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use rustix::process::Signal;

use crate::instance::InstanceRecord;
use crate::process::{self, Handle};
use crate::roles::Role;
use crate::sockets;

/// How long a role gets to end by itself; then it is killed. Too short cuts requests off; too long makes a restart wait for a hung role.
pub const ROLE_STOP: Duration = Duration::from_secs(10);

/// A role that another supervisor started.
pub struct LeftRole {
    /// The socket.
    pub role: Role,
    /// The process.
    pub handle: Handle,
}

/// Finds the roles of the instance that run: those of the record, and those whose program and arguments are ours (a supervisor may die
/// between starting a role and writing that down).
pub fn find(record: &InstanceRecord, boot_id: &str) -> Vec<LeftRole> {
    let layout = record.layout();
    let program = layout.program();
    let users = [0, record.uids.control(), record.uids.edge()];
    let mut left: Vec<LeftRole> = Vec::new();
    for role in Role::ALL {
        let mut ids = Vec::new();
        if record.boot_id == boot_id {
            ids.extend(record.roles.get(role.name()).copied());
        }
        let config = layout.role(role.name()).join("config.json");
        for found in process::all() {
            let is_ours = found.program == program
                && users.contains(&found.uid)
                && found.arguments.get(1).is_some_and(|word| word == role.name())
                && found.arguments.get(3).is_some_and(|word| *word == config.to_string_lossy());
            if is_ours && !ids.contains(&found.id) {
                ids.push(found.id);
            }
        }
        left.extend(ids.into_iter().filter_map(|id| Some(LeftRole { role, handle: id.open()? })));
    }
    left
}

/// Copies of the sockets that listen on `port` of the loopback addresses, taken out of the given roles.
pub fn take_listeners(left: &[LeftRole], port: u16) -> Vec<TcpListener> {
    let wanted = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let inodes: Vec<(IpAddr, u64)> = sockets::listening()
        .into_iter()
        .filter(|(address, found, _)| *found == port && wanted.contains(address))
        .map(|(address, _, inode)| (address, inode))
        .collect();
    let mut taken: Vec<(IpAddr, TcpListener)> = Vec::new();
    for role in left {
        for (fd, inode) in sockets::sockets_of(role.handle.id.pid) {
            let Some((address, _)) = inodes.iter().find(|(_, wanted)| *wanted == inode) else { continue };
            if taken.iter().any(|(have, _)| have == address) {
                continue;
            }
            let flags = rustix::process::PidfdGetfdFlags::empty();
            match rustix::process::pidfd_getfd(&role.handle, fd, flags) {
                Ok(fd) => {
                    let listener = TcpListener::from(fd);
                    let is_right =
                        listener.local_addr().is_ok_and(|found| found.port() == port && found.ip() == *address);
                    if is_right {
                        taken.push((*address, listener));
                    }
                }
                Err(error) => tracing::info!(%error, role = %role.role, "cannot take a socket over; it is bound again"),
            }
        }
    }
    // The IPv4 socket first, as when they are bound.
    taken.sort_by_key(|(address, _)| address.is_ipv6());
    taken.into_iter().map(|(_, listener)| listener).collect()
}

/// Ends roles in the order of stopping: SIGTERM, then SIGKILL after [`ROLE_STOP`].
pub async fn end(left: &[LeftRole]) {
    for role in Role::ALL.iter().rev() {
        for found in left.iter().filter(|found| found.role == *role) {
            end_process(&found.handle, *role).await;
        }
    }
}

/// Ends one process; returns when it has ended.
pub async fn end_process(handle: &Handle, role: Role) {
    let _ = handle.signal(Signal::TERM);
    if tokio::time::timeout(ROLE_STOP, handle.ended()).await.is_err() {
        tracing::warn!(%role, pid = handle.id.pid, "did not end in time, is killed");
        let _ = handle.signal(Signal::KILL);
        let _ = handle.ended().await;
    }
    // Our child after a change of program; otherwise another process's, and then there is nothing to reap.
    let _ = handle.reap();
}
