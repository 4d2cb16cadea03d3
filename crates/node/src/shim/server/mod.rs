//! The shim process itself: setting up, starting the workload, dropping privileges. The event loop is in [`pump`].

mod confine;
mod connection;
mod end;
mod log;
mod privileges;
mod pump;
mod spawn;

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use thiserror::Error;

use super::files;
use super::process::{ProcessIdentity, boot_id};
use super::spec::{Exit, LogFormat, LogLimits, PidRecord, SPEC_VERSION, Spec, Stderr};
use log::LogWriter;

/// The reason why a shim did not start.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ShimError {
    #[error("start shim: the process already has {threads} threads; it must be started before any runtime")]
    Threads { threads: usize },
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start shim: there is no spec.json in {}", dir.display())]
    NoSpec { dir: PathBuf },
    #[error("start shim: {} is of version {found}, this program knows up to {SPEC_VERSION}", dir.join("spec.json").display())]
    Version { dir: PathBuf, found: u32 },
    #[error("start shim: another shim already serves {}", dir.display())]
    AlreadyRunning { dir: PathBuf },
    #[error("start shim: {operation}")]
    System {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> ShimError {
    move |source| ShimError::System { operation, source }
}

/// Runs the shim of `dir` and returns when its workload has ended and `exit.json` is written.
///
/// It goes on in a process of its own: the calling process ends with code 0 at once. The outcome of the start is reported as one
/// JSON line on standard output (`{"ok":true}` or `{"ok":false,"error":…}`), after which that is closed.
/// Call it first thing in `main`, before any thread exists.
pub fn run(dir: &Path) -> Result<(), ShimError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(system("count threads"))?.count();
    if threads > 1 {
        return Err(ShimError::Threads { threads });
    }
    let outcome = serve(dir);
    if let Err(error) = &outcome {
        report(Some(&with_causes(error)));
    }
    outcome
}

fn serve(dir: &Path) -> Result<(), ShimError> {
    let file = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ShimError::File { operation, path, source }
    };
    let dir = dir.canonicalize().map_err(file("find", dir))?;
    let spec: Spec = files::read_json(&dir, "spec.json")
        .map_err(file("read", &dir.join("spec.json")))?
        .ok_or_else(|| ShimError::NoSpec { dir: dir.clone() })?;
    if spec.version > SPEC_VERSION {
        return Err(ShimError::Version { dir, found: spec.version });
    }
    spawn::close_all_except(&spec.inherited_fds);
    spawn::leave_parent().map_err(system("leave the parent"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::env::set_current_dir("/").map_err(system("enter /"))?;
    let signals = spawn::ignore_signals().map_err(system("set up signals"))?;
    for cgroup in &spec.shim_cgroups {
        spawn::join_cgroup(cgroup).map_err(file("join cgroup", cgroup))?;
    }
    let _lock = take_lock(&dir)?;
    for name in ["pid.json", "exit.json"] {
        files::remove(&dir, name).map_err(file("remove", &dir.join(name)))?;
    }
    files::take_reserve(&dir).map_err(file("reserve room in", &dir))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| system("become subreaper")(errno.into()))?;
    let listener = listen(&spec.socket).map_err(file("listen on", &spec.socket))?;

    let prepared = spawn::prepare(&spec).map_err(system("prepare the workload"))?;
    for fd in &spec.inherited_fds {
        spawn::close(*fd);
    }
    let record = PidRecord {
        version: SPEC_VERSION,
        id: spec.id.clone(),
        boot_id: boot_id().map_err(system("read the boot id"))?.to_owned(),
        child: ProcessIdentity::of(prepared.pid.as_raw_nonzero().get()).map_err(system("identify the workload"))?,
        shim: ProcessIdentity::current().map_err(system("identify the shim"))?,
        started_at: Timestamp::now(),
    };
    files::write_json(&dir, "pid.json", 0o644, &record).map_err(file("write", &dir.join("pid.json")))?;
    let pid = prepared.pid;
    let log = LogWriter::new(dir.clone(), "log", spec.log);
    let error_log = (spec.stderr == Stderr::Separate).then(|| {
        LogWriter::new(dir.clone(), "stderr", LogLimits { format: LogFormat::Raw, max_bytes: 64 << 10, max_files: 2 })
    });
    if let Some(user) = &spec.shim_user {
        privileges::give_folder(&dir, user).map_err(file("hand over", &dir))?;
    }
    match prepared.start() {
        Ok(streams) => {
            let pump = pump::Pump::new(&spec, dir, record, pid, streams, signals, listener, log, error_log);
            pump.run().map_err(system("wait for events"))
        }
        Err(reason) => {
            let exit = Exit {
                version: SPEC_VERSION,
                id: spec.id.clone(),
                finished_at: Timestamp::now(),
                reason: format!("cannot start: {reason}"),
                ..Exit::default()
            };
            let _ = files::release_reserve(&dir);
            files::write_json(&dir, "exit.json", 0o644, &exit).map_err(file("write", &dir.join("exit.json")))?;
            let _ = std::fs::remove_file(&spec.socket);
            report(Some(&exit.reason));
            Ok(())
        }
    }
}

fn take_lock(dir: &Path) -> Result<std::fs::File, ShimError> {
    let path = dir.join("lock");
    let error = |source| ShimError::File { operation: "lock", path: path.clone(), source };
    let lock = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(error)?;
    // A process that only checks whether it is held, holds it for a moment (`files::is_locked`).
    for _ in 0..50 {
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => pause(),
            Err(errno) => return Err(error(errno.into())),
        }
    }
    Err(ShimError::AlreadyRunning { dir: dir.to_owned() })
}

/// There is no runtime in a shim, and nothing to wait for: a lock that was tried gives no notice.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    files::remove_path(socket)?;
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Reports to the process that started us, which may have ended.
pub(super) fn report(error: Option<&str>) {
    let line = match error {
        None => serde_json::json!({ "ok": true }),
        Some(error) => serde_json::json!({ "ok": false, "error": error }),
    };
    let _ = writeln!(io::stdout(), "{line}");
    let _ = io::stdout().flush();
    for stream in [0, 1] {
        let _ = spawn::discard_stream(stream);
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
