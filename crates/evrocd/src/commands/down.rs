//! `evrocd down`: works with a running supervisor, with a dead one whose roles go on, and with nothing but guests left.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{purge, require_root};
use crate::cli::DownArgs;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord, LockError};
use crate::process;
use crate::status::report::WorkloadState;
use crate::supervisor::protocol::{Reply, Request};
use crate::supervisor::{client, drain_without_supervisor, takeover};

/// How long a supervisor gets to answer at all, and to end after its last word. One that is starting may first have to end another's roles.
const ANSWER: Duration = Duration::from_secs(60);

/// Stops the instance.
pub fn down(arguments: &DownArgs) -> anyhow::Result<ExitCode> {
    require_root("down")?;
    let instance = &arguments.instance.instance;
    let Some(record) = record_of(instance)? else {
        if arguments.purge {
            purge::without_record(instance)?;
        }
        say!("there is no instance {instance}");
        return Ok(ExitCode::SUCCESS);
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let (lock, answer) = ask_until_free(instance, &record, timeout)?;
    let problem = match answer {
        Some(problem) => problem,
        None => stop_what_is_left(&record, timeout)?,
    };
    if arguments.purge {
        // Read again: the supervisor wrote to it.
        let record = InstanceRecord::load(instance)?.unwrap_or(record);
        purge::purge(&record, lock)?;
        say!("instance {instance} and its state are removed");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(problem) = problem {
        bail!(problem);
    }
    say!("instance {instance} is stopped; `evrocd up` starts it again");
    Ok(ExitCode::SUCCESS)
}

/// Requests a running supervisor to stop. `None`: none runs. `Some(None)`: done. `Some(Some(warning))`: done, with this warning.
fn ask_supervisor(record: &InstanceRecord, timeout: Duration) -> anyhow::Result<Option<Option<String>>> {
    let socket = record.layout().supervisor_socket();
    if client::status(&socket).ok().flatten().is_none() {
        return Ok(None);
    }
    let mut outcome = None;
    let request = Request::Down { timeout_seconds: timeout.as_secs() };
    let result = client::ask(&socket, &request, |reply| match reply {
        Reply::Progress { message } => say!("{message}"),
        Reply::Done { message } => {
            say!("{message}");
            outcome = Some(None);
        }
        Reply::Error { message } => outcome = Some(Some(message)),
        Reply::Status(_) => {}
    });
    match (outcome, result) {
        (Some(outcome), _) => Ok(Some(outcome)),
        // It died before its answer: then it is as if there had been none.
        (None, _) => Ok(None),
    }
}

/// The instance's record; a start that is under way may not have written it yet.
fn record_of(instance: &InstanceName) -> anyhow::Result<Option<InstanceRecord>> {
    let deadline = Instant::now() + ANSWER;
    loop {
        if let Some(record) = InstanceRecord::load(instance)? {
            return Ok(Some(record));
        }
        match InstanceLock::acquire(instance) {
            Err(LockError::Held(_)) if Instant::now() < deadline => crate::process::pause(Duration::from_millis(50)),
            Ok(lock) if !InstanceRecord::path(instance).exists() => {
                // Made by the look itself, or left by a start that got no further.
                lock.remove()?;
                return Ok(None);
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks the supervisor, if there is one, and waits until the instance is free. A supervisor that is just starting does not answer yet: it
/// requested again until it does.
fn ask_until_free(
    instance: &InstanceName,
    record: &InstanceRecord,
    timeout: Duration,
) -> anyhow::Result<(InstanceLock, Option<Option<String>>)> {
    let deadline = Instant::now() + ANSWER;
    let mut answer = None;
    loop {
        answer = ask_supervisor(record, timeout)?.or(answer);
        match InstanceLock::acquire(instance) {
            Ok(lock) => return Ok((lock, answer)),
            Err(LockError::Held(_)) if Instant::now() < deadline => crate::process::pause(Duration::from_millis(50)),
            Err(LockError::Held(_)) => {
                bail!(
                    "instance {instance} has a supervisor that does not answer; end it first (its pid is in {})",
                    InstanceRecord::path(instance).display()
                )
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// No supervisor: end its roles, then let a node stop what still runs.
fn stop_what_is_left(record: &InstanceRecord, timeout: Duration) -> anyhow::Result<Option<String>> {
    let boot_id = process::boot_id()?;
    let left = takeover::find(record, &boot_id);
    let running = crate::status::workloads::workloads(&record.layout(), &boot_id)
        .iter()
        .filter(|workload| workload.state == WorkloadState::Running)
        .count();
    if left.is_empty() && running == 0 {
        say!("nothing of it was running");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if !left.is_empty() {
            say!("ending {} roles that a dead supervisor left", left.len());
            takeover::end(&left).await;
        }
        if running == 0 {
            return Ok(None);
        }
        let drained = drain_without_supervisor(record, &boot_id, timeout, |message| say!("{message}")).await;
        match drained.context("cannot stop all guests and containers") {
            Ok(words) => {
                say!("{words}");
                Ok(None)
            }
            Err(error) => Ok(Some(format!("{error:#}"))),
        }
    })
}
