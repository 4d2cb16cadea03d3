//! Replaces the supervisor by a newer program without closing anything: `execve` in place, with the listening sockets and the lock inherited.
//!
//! The process id stays, so the roles stay children; the new program then ends and starts them as any new supervisor does.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::prepare::Inherited;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord};
use crate::roles::inherited as descriptors;

const API: &str = "EVROC_RELOAD_API";
const HTTPS: &str = "EVROC_RELOAD_HTTPS";
/// Variable with the number of the lock's descriptor, where a supervisor does not have to take the lock itself.
pub const LOCK: &str = "EVROC_LOCK";

/// Becomes the program in the state folder. Returns only when that failed, with everything as it was.
pub fn replace_self(
    record: &InstanceRecord,
    lock: &InstanceLock,
    api: &[TcpListener],
    https: &[TcpListener],
    is_detached: bool,
) -> io::Error {
    let mut command = Command::new(record.layout().program());
    command.args(["up", "--instance", &record.instance]);
    if is_detached {
        command.arg("--detached-child");
    }
    let kept: Vec<BorrowedFd<'_>> = api.iter().chain(https).map(AsFd::as_fd).chain([lock.as_fd()]).collect();
    let numbers =
        |sockets: &[TcpListener]| sockets.iter().map(|fd| fd.as_raw_fd().to_string()).collect::<Vec<_>>().join(",");
    command.env(API, numbers(api)).env(HTTPS, numbers(https)).env(LOCK, lock.as_fd().as_raw_fd().to_string());
    command.env_remove("EVROC_PROGRESS");
    tracing::info!(program = %record.layout().program().display(), "becomes the new program");
    if let Err(error) = close_on_exec(&kept, false) {
        return error;
    }
    let error = command.exec();
    // Still the old program: nothing of this must leak into roles.
    let _ = close_on_exec(&kept, true);
    error
}

fn close_on_exec(fds: &[BorrowedFd<'_>], yes: bool) -> io::Result<()> {
    let flags = if yes { rustix::io::FdFlags::CLOEXEC } else { rustix::io::FdFlags::empty() };
    fds.iter().try_for_each(|fd| rustix::io::fcntl_setfd(fd, flags).map_err(Into::into))
}

/// The descriptors that the previous program left open for this one.
pub fn inherited(instance: &InstanceName) -> anyhow::Result<Inherited> {
    let sockets = |variable| -> anyhow::Result<Vec<TcpListener>> {
        Ok(descriptors(variable)?.into_iter().map(TcpListener::from).collect())
    };
    Ok(Inherited {
        api: sockets(API)?,
        https: sockets(HTTPS)?,
        lock: descriptors(LOCK)?
            .into_iter()
            .next()
            .and_then(|fd: OwnedFd| InstanceLock::inherited(instance, File::from(fd))),
    })
}
