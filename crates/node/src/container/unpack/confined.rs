//! The process that unpacks one layer: it gives up everything but its folder, then reads the layer from standard input.
#![allow(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{Resource, Rlimit, pivot_root, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use serde::{Deserialize, Serialize};

use super::{Limits, Outcome, UnpackError, unpack_layer};

/// Memory beyond what the program itself takes, in bytes. Lower refuses honest layers (zstd's window is 128 MiB, the times of the
/// folders of a large layer are some megabytes); higher makes bombs cost more.
const MEMORY: u64 = 512 << 20;
/// Processor time in seconds. A layer of 16 GiB takes some minutes of it; a build without optimisation is ten times slower.
pub(super) const CPU_SECONDS: u64 = 1800;
/// Descriptors: standard streams, the root, and those of a walk.
const DESCRIPTORS: u64 = 64;

/// The argument of the process, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    /// The existing, empty folder to fill.
    pub(super) folder: PathBuf,
    /// The user and group to become.
    pub(super) user: u32,
    /// The limits of the layer.
    pub(super) limits: Limits,
}

/// Confines this process, unpacks standard input as `job` says, and writes the outcome to standard output. Call it first thing in
/// `main`, before any thread exists, as root.
pub fn run(job: &str) -> io::Result<()> {
    let outcome = work(job);
    let mut line = serde_json::to_vec(&outcome)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

fn work(job: &str) -> Outcome {
    let job: Job = serde_json::from_str(job).map_err(|error| UnpackError::Host(format!("read the job: {error}")))?;
    confine(&job).map_err(|(operation, error)| UnpackError::host(operation, &error))?;
    unpack_layer(io::stdin().lock(), Path::new("/"), job.limits)
}

type Failed = (&'static str, io::Error);

fn confine(job: &Job) -> Result<(), Failed> {
    let failed = |operation| move |error: rustix::io::Errno| (operation, io::Error::from(error));
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| ("count threads", error))?.count();
    if threads != 1 {
        return Err(("confine the process", io::Error::other(format!("it has {threads} threads"))));
    }
    // SAFETY: nothing in this process uses a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    limit(job).map_err(failed("limit resources"))?;

    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: the process has one thread and shares no memory or descriptors with another.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(failed("leave the host's namespaces"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("make mounts private"))?;
    mount_bind(&job.folder, &job.folder).map_err(failed("mount the folder"))?;
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(&job.folder, flags, "").map_err(failed("restrict the folder's mount"))?;
    rustix::process::chdir(&job.folder).map_err(failed("enter the folder"))?;
    // The old root ends up on top of the new one, and is then taken off.
    pivot_root(".", ".").map_err(failed("make the folder the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("leave the host's files"))?;
    rustix::process::chdir("/").map_err(failed("enter the root"))?;

    give_up_root(job.user).map_err(|error| ("give up root", error))
}

fn limit(job: &Job) -> Result<(), rustix::io::Errno> {
    let own = own_memory();
    // A file larger than all of the layer cannot be.
    let file = job.limits.bytes;
    for (resource, value) in [
        (Resource::As, own + MEMORY),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Fsize, file),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Core, 0),
        (Resource::Nproc, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    }
    // A write beyond the limit is an error that can be reported, not the end.
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    Ok(())
}

/// The program's address space in bytes.
fn own_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Becomes `user`. Files get the owners and modes of the layer, so the right to set those stays; it reaches only the
/// layer's files, as the process can see no others.
fn give_up_root(user: u32) -> io::Result<()> {
    let kept = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    for capability in CapabilitySet::all().difference(kept).iter() {
        // The kernel may know fewer of them than the library.
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::thread::set_keep_capabilities(true)?;
    // SAFETY: plain system calls; the list of groups is empty.
    let changed = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(user, user, user) == 0
            && libc::setresuid(user, user, user) == 0
    };
    if !changed {
        return Err(io::Error::last_os_error());
    }
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    rustix::thread::set_keep_capabilities(false)?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}
