//! `evrocd up`, in the foreground or as a background process that is waited for until it is ready.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::require_root;
use crate::bootstrap;
use crate::cli::UpArgs;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord, LockError};
use crate::status::report::SupervisorState;
use crate::supervisor::protocol::{Reply, Request, StartLine, SupervisorStatus};
use crate::supervisor::{self, Progress, Start, client};

const PROGRESS: &str = "EVROC_PROGRESS";
/// How long a running supervisor gets to become another program and have all roles ready again.
const RELOAD: Duration = Duration::from_secs(90);

/// How long another start or stop of the same instance may take.
const OTHER_START: Duration = Duration::from_secs(90);

/// Starts the cloud.
pub fn up(arguments: &UpArgs) -> anyhow::Result<ExitCode> {
    let instance = &arguments.instance.instance;
    if arguments.detached_child {
        let progress = match crate::roles::inherited(PROGRESS)?.into_iter().next() {
            Some(fd) => Progress::Pipe(File::from(fd)),
            None => Progress::Silent,
        };
        return run(arguments, None, true, progress);
    }
    // A supervisor that replaced itself in the foreground comes here with its own lock held: it is not "already running".
    let is_reload = std::env::var_os(supervisor::LOCK).is_some();
    if !is_reload && let Some(status) = running(instance)?.filter(|status| status.state == SupervisorState::Running) {
        return already_running(arguments, instance, status);
    }
    require_root("up")?;
    if is_reload {
        return run(arguments, None, false, Progress::Terminal);
    }
    match wait_for_another_start(instance)? {
        Turn::Runs(status) => already_running(arguments, instance, *status),
        Turn::Ours(lock) if arguments.detach => detach(arguments, instance, lock),
        Turn::Ours(lock) => run(arguments, Some(lock), false, Progress::Terminal),
    }
}

fn run(
    arguments: &UpArgs,
    lock: Option<InstanceLock>,
    is_detached: bool,
    progress: Progress,
) -> anyhow::Result<ExitCode> {
    let options = arguments.options()?;
    supervisor::run(Start { instance: arguments.instance.instance.clone(), options, lock, is_detached, progress })
}

/// The status of a supervisor that answers.
fn running(instance: &InstanceName) -> anyhow::Result<Option<SupervisorStatus>> {
    match InstanceRecord::load(instance)? {
        Some(record) => Ok(client::status(&record.layout().supervisor_socket())?),
        None => Ok(None),
    }
}

/// The state that a start finds when it holds the lock.
enum Turn {
    /// A supervisor runs.
    Runs(Box<SupervisorStatus>),
    /// None runs, and none can start beside us.
    Ours(InstanceLock),
}

/// Another command may be starting or stopping the instance at this moment: waits until it either runs or is free.
fn wait_for_another_start(instance: &InstanceName) -> anyhow::Result<Turn> {
    let deadline = Instant::now() + OTHER_START;
    let mut is_first = true;
    loop {
        match InstanceLock::acquire(instance) {
            Ok(lock) => return Ok(Turn::Ours(lock)),
            Err(LockError::File(error)) => return Err(error.into()),
            Err(held @ LockError::Held(_)) if Instant::now() > deadline => {
                return Err(held).context("it does not get ready");
            }
            Err(LockError::Held(_)) => {}
        }
        if let Some(status) = running(instance)?.filter(|status| status.state == SupervisorState::Running) {
            return Ok(Turn::Runs(Box::new(status)));
        }
        if std::mem::take(&mut is_first) {
            say!("instance {instance} is being started or stopped by another supervisor: waiting for that");
        }
        crate::process::pause(Duration::from_millis(50));
    }
}

/// Handles a running supervisor: reports it, refuses options that need a restart, and hands over to this program if it is a different build.
fn already_running(arguments: &UpArgs, instance: &InstanceName, status: SupervisorStatus) -> anyhow::Result<ExitCode> {
    for (flag, wanted, found) in
        [("--api-port", arguments.api_port, status.api_port), ("--https-port", arguments.https_port, status.https_port)]
    {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != 0 && *wanted != found) {
            bail!(
                "{flag} {wanted}: instance {instance} is running with {found}; stop it first with `evrocd down --instance {instance}`"
            );
        }
    }
    let state_root = status.state_dir.parent();
    if let Some(wanted) = arguments.state_dir_root.as_deref().filter(|wanted| Some(*wanted) != state_root) {
        bail!(
            "--state-dir-root {}: instance {instance} keeps its state in {}; leave the flag out",
            wanted.display(),
            status.state_dir.display()
        );
    }
    if let Some(wanted) = arguments.domain.as_ref().filter(|wanted| **wanted != status.domain) {
        bail!(
            "--domain {wanted}: instance {instance} is running with {}; stop it first with `evrocd down --instance {instance}`",
            status.domain
        );
    }
    if arguments.store.store.is_some() {
        let record = InstanceRecord::load(instance)?.context("the instance's record is absent")?;
        if arguments.options()?.store.is_some_and(|wanted| wanted != record.etcd) {
            bail!(
                "--store: instance {instance} is running with another one; stop it first with `evrocd down --instance {instance}`"
            );
        }
    }
    if let Some(wanted) = &arguments.crd_dir {
        let record = InstanceRecord::load(instance)?.context("the instance's record is absent")?;
        let wanted = std::path::absolute(wanted).context("--crd-dir")?;
        if record.crd_dir.as_deref().map(std::path::absolute).transpose().context("--crd-dir")? != Some(wanted) {
            bail!(
                "--crd-dir: instance {instance} is running with another one; stop it first with `evrocd down --instance {instance}`"
            );
        }
    }
    if let Some(wanted) = &arguments.otlp_endpoint {
        let record = InstanceRecord::load(instance)?.context("the instance's record is absent")?;
        let found = record.otlp_endpoint.as_deref().unwrap_or("none");
        if found != wanted {
            bail!(
                "--otlp-endpoint {wanted}: instance {instance} is running with {found}; stop it first with `evrocd down --instance {instance}`"
            );
        }
    }
    let own = bootstrap::digest_of_self()?;
    if status.state == SupervisorState::Running && own != status.digest && rustix::process::geteuid().is_root() {
        say!("instance {instance} runs another build of evrocd ({}): handing over to this one", status.version);
        return hand_over(instance, &own);
    }
    say!("instance {instance} is already running (state {})", status.state);
    say!("{}", crate::status::text::summary(&status).trim_end());
    Ok(ExitCode::SUCCESS)
}

fn hand_over(instance: &InstanceName, own: &str) -> anyhow::Result<ExitCode> {
    let record = InstanceRecord::load(instance)?.context("the instance's record is absent")?;
    let layout = record.layout();
    bootstrap::install_program(&layout.program(), own)?;
    let mut refused = None;
    // The connection ends when the supervisor becomes the new program; only a refusal comes back.
    let _ = client::ask(&layout.supervisor_socket(), &Request::Reload, |reply| {
        if let Reply::Error { message } = reply {
            refused = Some(message);
        }
    });
    if let Some(message) = refused {
        bail!(message);
    }
    let deadline = Instant::now() + RELOAD;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = client::status(&layout.supervisor_socket())
            && status.digest == own
            && status.state == SupervisorState::Running
        {
            say!("{}", crate::status::text::summary(&status).trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        crate::process::pause(Duration::from_millis(100));
    }
    bail!("the new program is not ready after {} s: see {}", RELOAD.as_secs(), layout.log("supervisor").display())
}

/// Starts the supervisor in a session of its own, which inherits the instance's lock, and waits for its first word that matters.
#[allow(unsafe_code)]
fn detach(arguments: &UpArgs, instance: &InstanceName, lock: InstanceLock) -> anyhow::Result<ExitCode> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("evrocd").args(["up", "--detached-child", "--instance", instance.as_str()]);
    command.arg("--options-json").arg(serde_json::to_string(&arguments.options()?)?);
    command.env(PROGRESS, write.as_raw_fd().to_string());
    command.env(supervisor::LOCK, lock.as_fd().as_raw_fd().to_string());
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    let passed = [write.as_raw_fd(), lock.as_fd().as_raw_fd()];
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            // A process that stays must not hold open the descriptors that a shell or make left open.
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if libc::setsid() < 0 || passed.iter().any(|fd| libc::fcntl(*fd, libc::F_SETFD, 0) < 0) {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn().context("cannot start the background process")?;
    drop((write, lock));
    let result = follow(read, instance);
    if result.is_err() {
        // It stops the processes it started before it reports that it failed.
        let _ = child.wait();
    }
    result
}

fn follow(read: OwnedFd, instance: &InstanceName) -> anyhow::Result<ExitCode> {
    for line in BufReader::new(File::from(read)).lines() {
        match serde_json::from_str(&line?) {
            Ok(StartLine::Note { message }) => say!("{message}"),
            Ok(StartLine::Ready(status)) => {
                say!("{}", crate::status::text::summary(&status).trim_end());
                return Ok(ExitCode::SUCCESS);
            }
            Ok(StartLine::Failed { message }) => bail!(message),
            Err(_) => {}
        }
    }
    let log = InstanceRecord::load(instance)?.map(|record| record.layout().log("supervisor"));
    match log {
        Some(path) => bail!("the supervisor ended before everything was ready: see {}", path.display()),
        None => bail!("the supervisor ended before it had made anything"),
    }
}
