//! Starting the workload: fork, prepare, wait for permission, execute.
//!
//! `std::process::Command` cannot do it: it returns only after the program has been executed, and here the pid has to be on disk
//! before that.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::confine::{self, NewProcessNamespace};
use crate::shim::spec::{Spec, Stderr, Stdio, User};

/// The workload's process before it executes anything, and our ends of its standard streams.
pub(super) struct Prepared {
    pub(super) pid: Pid,
    pub(super) streams: Streams,
    permission: std::fs::File,
    refusal: std::fs::File,
}

/// Our ends of the workload's standard streams, all non-blocking.
pub(super) struct Streams {
    /// Writes reach the workload's input; with a terminal the same device as `output`.
    pub(super) input: Option<OwnedFd>,
    /// Standard output or terminal.
    pub(super) output: Option<OwnedFd>,
    /// Standard error, if it has a pipe of its own.
    pub(super) error: Option<OwnedFd>,
    /// Whether `output` is a terminal.
    pub(super) is_terminal: bool,
}

impl Prepared {
    /// Lets the workload execute. An error is the child's own message; the child has ended then.
    pub(super) fn start(mut self) -> Result<Streams, String> {
        // The child may have ended already: its refusal, read next, says why.
        let _ = self.permission.write_all(b"1");
        drop(self.permission);
        let mut refusal = String::new();
        match self.refusal.read_to_string(&mut refusal) {
            Ok(0) => Ok(self.streams),
            Ok(_) => Err(refusal),
            Err(error) => Err(format!("read the result of exec: {error}")),
        }
    }
}

/// The target of a signal.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// One process.
    Process,
    /// The process group that it leads.
    Group,
}

/// Sends a signal by its number, real-time signals included, for which there are no names.
pub(super) fn send_signal(pid: Pid, target: Target, number: i32) -> io::Result<()> {
    let pid = pid.as_raw_nonzero().get();
    let receiver = match target {
        Target::Process => pid,
        Target::Group => -pid,
    };
    // SAFETY: a plain system call on numbers.
    if unsafe { libc::kill(receiver, number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Forks the child. It has joined its cgroups, session, streams and user and waits; if we die it ends without executing.
pub(super) fn prepare(spec: &Spec) -> io::Result<Prepared> {
    let program = Program::new(spec)?;
    let (permission_read, permission_write) = pipe()?;
    let (refusal_read, refusal_write) = pipe()?;
    let (streams, ends) = open_streams(spec)?;

    let namespace = spec.confinement.as_ref().map(|_| NewProcessNamespace::begin()).transpose()?;
    // SAFETY: the shim is single-threaded (checked in `run`), so the child may go on running ordinary code.
    let pid = unsafe { libc::fork() };
    let failed = (pid < 0).then(io::Error::last_os_error);
    if pid != 0
        && let Some(namespace) = namespace
    {
        namespace.end()?;
    }
    match pid {
        -1 => Err(failed.unwrap_or_else(io::Error::last_os_error)),
        0 => {
            drop(permission_write);
            let refused = become_workload(spec, &program, &ends, permission_read);
            let _ = std::fs::File::from(refusal_write).write_all(refused.as_bytes());
            // SAFETY: ends the process without running the parent's destructors and exit handlers.
            unsafe { libc::_exit(127) }
        }
        pid => Ok(Prepared {
            pid: Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?,
            streams,
            permission: permission_write.into(),
            refusal: refusal_read.into(),
        }),
    }
}

/// Strings for exec, allocated before the fork.
struct Program {
    path: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn new(spec: &Spec) -> io::Result<Self> {
        let text =
            |text: &str| CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "NUL in a string"));
        let argv = spec.argv.iter().map(|arg| text(arg)).collect::<io::Result<Vec<_>>>()?;
        let path = argv.first().cloned().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "argv is empty"))?;
        let env =
            spec.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { path, argv, env })
    }
}

/// The child's ends.
struct Ends {
    input: OwnedFd,
    output: OwnedFd,
    error: OwnedFd,
    is_terminal: bool,
}

fn open_streams(spec: &Spec) -> io::Result<(Streams, Ends)> {
    if let Stdio::Pty { rows, cols } = spec.stdio {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        rustix::termios::tcsetwinsize(&master, winsize(rows, cols))?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        if let Some(user) = &spec.user {
            rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(user.uid)), None)?;
        }
        set_nonblocking(&master)?;
        let ends = Ends { input: slave.try_clone()?, output: slave.try_clone()?, error: slave, is_terminal: true };
        let streams =
            Streams { input: Some(master.try_clone()?), output: Some(master), error: None, is_terminal: true };
        return Ok((streams, ends));
    }
    let (input, our_input) = pipe()?;
    let (our_output, output) = pipe()?;
    let (our_error, error) = pipe()?;
    for fd in [&our_input, &our_output, &our_error] {
        set_nonblocking(fd)?;
    }
    let streams =
        Streams { input: Some(our_input), output: Some(our_output), error: Some(our_error), is_terminal: false };
    // Merged standard error still has a pipe of its own: the CRI format separates the streams.
    let (Stderr::Merge | Stderr::Separate) = spec.stderr;
    Ok((streams, Ends { input, output, error, is_terminal: false }))
}

pub(super) fn winsize(rows: u16, cols: u16) -> rustix::termios::Winsize {
    rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Only returns if it fails, with a sentence.
fn become_workload(spec: &Spec, program: &Program, ends: &Ends, permission: OwnedFd) -> String {
    if let Err(text) = prepare_self(spec, ends) {
        return text;
    }
    let mut byte = [0];
    if !matches!(std::fs::File::from(permission).read(&mut byte), Ok(1)) {
        // There is no reader left.
        return "the shim ended before it gave permission to start".into();
    }
    if let Some(confinement) = &spec.confinement
        && let Err(text) = confine::enter(confinement).and_then(|()| confine::drop_bounding_set())
    {
        return text;
    }
    if let Err(text) = drop_privileges(spec) {
        return text;
    }
    let argv: Vec<_> = program.argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let env: Vec<_> = program.env.iter().map(|var| var.as_ptr()).chain([std::ptr::null()]).collect();
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(program.path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    format!("execute {}: {}", spec.argv[0], io::Error::last_os_error())
}

fn prepare_self(spec: &Spec, ends: &Ends) -> Result<(), String> {
    reset_signals();
    rustix::process::setsid().map_err(|errno| format!("open a session: {errno}"))?;
    if ends.is_terminal {
        rustix::process::ioctl_tiocsctty(&ends.input).map_err(|errno| format!("take the terminal: {errno}"))?;
    }
    for cgroup in &spec.cgroups {
        join_cgroup(cgroup).map_err(|error| format!("join cgroup {}: {error}", cgroup.display()))?;
    }
    if let Some(score) = spec.oom_score_adj {
        raise_oom_score(score).map_err(|error| format!("set oom_score_adj to {score}: {error}"))?;
    }
    for (end, number) in [(&ends.input, 0), (&ends.output, 1), (&ends.error, 2)] {
        // SAFETY: 0, 1 and 2 are open in the shim but used by nothing in this process any more.
        if unsafe { libc::dup2(end.as_raw_fd(), number) } < 0 {
            return Err(format!("set up stream {number}: {}", io::Error::last_os_error()));
        }
    }
    for number in &spec.inherited_fds {
        // SAFETY: plain fcntl on a number; a closed one is an error.
        if unsafe { libc::fcntl(*number, libc::F_SETFD, 0) } < 0 {
            return Err(format!("pass descriptor {number}: {}", io::Error::last_os_error()));
        }
    }
    std::env::set_current_dir(&spec.cwd).map_err(|error| format!("enter folder {}: {error}", spec.cwd.display()))?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}

fn drop_privileges(spec: &Spec) -> Result<(), String> {
    if let Some(user) = &spec.user {
        become_user(user).map_err(|error| format!("become user {}: {error}", user.uid))?;
    }
    if spec.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|errno| format!("set no_new_privs: {errno}"))?;
    }
    Ok(())
}

/// Raises the process's `oom_score_adj` to `score`. A higher one stays: lowering needs a capability.
fn raise_oom_score(score: i32) -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let current: i32 = std::fs::read_to_string(FILE)?.trim().parse().map_err(io::Error::other)?;
    if current < score { std::fs::write(FILE, score.to_string()) } else { Ok(()) }
}

/// Adds the calling process to a cgroup (v1 or v2).
pub(super) fn join_cgroup(cgroup: &std::path::Path) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))?.write_all(b"0")
}

/// Changes all ids of this single-threaded process. Leaving root takes the capabilities along, unless they are kept by prctl.
pub(super) fn become_user(user: &User) -> io::Result<()> {
    let (uid, gid) = (user.uid, user.gid);
    if rustix::process::geteuid().is_root() {
        // SAFETY: pointer and length describe one slice.
        if unsafe { libc::setgroups(user.groups.len(), user.groups.as_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: plain system calls.
    if unsafe { libc::setresgid(gid, gid, gid) } < 0 || unsafe { libc::setresuid(uid, uid, uid) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: installs default dispositions; numbers that cannot be changed are refused without effect.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t filled by sigemptyset.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ignores everything that a terminal, a service manager or a process group may send to the shim, and turns the end of
/// children into readiness of a descriptor. It is stopped through its socket, by the end of its workload, or by SIGKILL.
pub(super) fn ignore_signals() -> io::Result<OwnedFd> {
    let ignored = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGPIPE,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGXFSZ,
    ];
    for number in ignored {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
    // SAFETY: the set is initialised before use, the descriptor is new and has no other owner.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Closes every descriptor above 2 that is not listed.
pub(super) fn close_all_except(keep: &[RawFd]) {
    let mut keep: Vec<libc::c_uint> =
        keep.iter().filter_map(|fd| libc::c_uint::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for number in keep.into_iter().chain([libc::c_uint::MAX]) {
        if first < number {
            // SAFETY: called before this process has opened anything that it keeps.
            unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) };
        }
        first = number.saturating_add(1);
    }
}

/// Closes one inherited descriptor after the child has its copy: a tap that the shim kept open would outlive its guest.
pub(super) fn close(fd: RawFd) {
    // SAFETY: the number was listed in the spec as inherited; nothing in the shim owns it.
    unsafe { libc::close(fd) };
}

/// Goes on in a child process and ends this one, so that the starter of the shim can wait for that at once and is not its parent.
pub(super) fn leave_parent() -> io::Result<()> {
    // SAFETY: single-threaded, see `prepare`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(rustix::process::setsid().map(|_| ())?),
        // SAFETY: the child goes on; nothing here needs to be cleaned up.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Replaces stream `number` by `/dev/null`.
pub(super) fn discard_stream(number: RawFd) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open(std::ffi::OsStr::from_bytes(b"/dev/null"))?;
    // SAFETY: `null` is open; the standard streams are owned by no Rust object that closes them.
    if unsafe { libc::dup2(null.as_raw_fd(), number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
