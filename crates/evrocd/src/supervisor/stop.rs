//! The end of an instance's processes: by a signal, by `evrocd down`, or because a role does not start.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;

use super::events::{DEATHS_AT_START, sleep_until};
use super::protocol::{Reply, Request};
use super::{Event, Stop, Supervisor, limits, logs, role, server, takeover};
use crate::instance::InstanceRecord;
use crate::roles::{Command, Report, Role, RoleMode};
use crate::status::report::SupervisorState;

/// The extra time, beyond the guests' own, for a node to report that it has stopped them.
const DRAIN_GRACE: Duration = Duration::from_secs(20);

impl Supervisor {
    /// Ends everything that `stop` names. Guests and containers end only by `down`.
    pub(super) async fn stop(&mut self, stop: Stop) -> anyhow::Result<ExitCode> {
        match stop {
            Stop::Signal(name) => {
                tracing::info!(signal = name, "stops; guests and containers go on");
                self.end_roles().await;
                if !self.is_detached {
                    say!("stopped; guests and containers go on: `evrocd up` takes them over, `evrocd down` stops them");
                }
                Ok(ExitCode::SUCCESS)
            }
            Stop::RoleFails(role) => {
                let last = self.roles[&role].last_exit.clone().unwrap_or_default();
                self.end_roles().await;
                let path = self.record.layout().log(role.name());
                let tail = logs::tail(&path, 5).join("\n  ");
                let message = format!(
                    "role {role} does not start (tried {DEATHS_AT_START} times, last: {last}); the end of {}:\n  {tail}",
                    path.display()
                );
                self.progress.failed(&message);
                anyhow::bail!(message)
            }
            Stop::Down { timeout, reply } => {
                self.state = SupervisorState::Draining;
                let drained = self.drain(timeout, &reply).await;
                self.state = SupervisorState::Stopping;
                let _ = reply.send(Reply::Progress { message: "stopping the roles".into() }).await;
                self.end_roles().await;
                let _ = reply
                    .send(match drained {
                        Ok((stopped, killed)) => Reply::Done { message: drained_text(stopped, killed) },
                        Err(message) => Reply::Error { message },
                    })
                    .await;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// Requests the node to stop its workloads and waits for its answer. A node that dies meanwhile is started again, and the request
    /// repeated.
    async fn drain(&mut self, timeout: Duration, reply: &mpsc::Sender<Reply>) -> Result<(u32, u32), String> {
        let deadline = Instant::now() + timeout + DRAIN_GRACE;
        let mut asked_generation = None;
        loop {
            if self.roles[&Role::Node].started.is_none() {
                self.spawn(Role::Node);
            }
            if let Some(started) = &self.roles[&Role::Node].started
                && asked_generation != Some(started.generation)
            {
                asked_generation = Some(started.generation);
                let _ = started.commands.send(Command::Drain { timeout_seconds: timeout.as_secs() }).await;
            }
            let retry = Instant::now() + Duration::from_secs(1);
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = sleep_until(Some(deadline.min(retry))) => None,
            };
            if Instant::now() >= deadline {
                return Err(format!(
                    "node did not stop all guests and containers within {} s; they go on running: see {}",
                    timeout.as_secs(),
                    self.record.layout().log("node").display()
                ));
            }
            match event {
                Some(Event::Reported { role: Role::Node, report: Report::Drained { stopped, killed }, .. }) => {
                    return Ok((stopped, killed));
                }
                Some(Event::Reported { role: Role::Node, report: Report::Progress { message }, .. }) => {
                    let _ = reply.send(Reply::Progress { message }).await;
                }
                Some(Event::Reported { role, generation, report }) => self.note_report(role, generation, &report),
                Some(Event::Exited { role, generation, ended }) => {
                    self.note_exit(role, generation, ended);
                }
                Some(Event::ClientRequest(client_request)) => self.answer_while_stopping(client_request).await,
                None => {}
            }
        }
    }

    async fn answer_while_stopping(&self, client_request: server::ClientRequest) {
        let reply = match client_request.request {
            Request::Status => Reply::Status(Box::new(self.status(client_request.is_privileged))),
            _ => Reply::Error { message: "the instance is being stopped".into() },
        };
        let _ = client_request.reply.send(reply).await;
    }

    async fn end_roles(&mut self) {
        self.state = SupervisorState::Stopping;
        for role in Role::ALL.into_iter().rev() {
            let Some(slot) = self.roles.get_mut(&role) else { continue };
            slot.next_start = None;
            if let Some(started) = slot.started.take() {
                takeover::end_process(&started.handle, role).await;
                tracing::info!(%role, "role stopped");
            }
        }
        limits::remove_unused(&self.record.instance);
    }
}

fn drained_text(stopped: u32, killed: u32) -> String {
    match (stopped, killed) {
        (0, 0) => "no guest or container ran".into(),
        (stopped, 0) => format!("stopped {stopped} guests and containers"),
        (stopped, killed) => {
            format!("stopped {stopped} guests and containers; {killed} did not end in time and were killed")
        }
    }
}

/// Starts a node for nothing but stopping what runs; for `evrocd down` when no supervisor runs. The caller holds the instance's lock.
pub async fn drain_without_supervisor(
    record: &InstanceRecord,
    boot_id: &str,
    timeout: Duration,
    mut on_progress: impl FnMut(&str),
) -> anyhow::Result<String> {
    let (queue, mut events) = mpsc::channel(64);
    let config = role::config(record, Role::Node, RoleMode::DrainOnly, (0, 0), boot_id);
    let started = role::start(record, Role::Node, &config, Vec::<(&'static str, Vec<_>)>::new(), &queue)?;
    started.commands.send(Command::Drain { timeout_seconds: timeout.as_secs() }).await?;
    let wait = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Reported { report: Report::Drained { stopped, killed }, .. } => {
                    return Ok(drained_text(stopped, killed));
                }
                Event::Reported { report: Report::Progress { message }, .. } => on_progress(&message),
                Event::Exited { ended, .. } => anyhow::bail!(
                    "node ended before it had stopped everything ({}); see {}",
                    ended.map_or_else(|| "unknown".into(), |ended| ended.to_string()),
                    record.layout().log("node").display()
                ),
                _ => {}
            }
        }
        anyhow::bail!("node has ended")
    };
    let result = tokio::time::timeout(timeout + DRAIN_GRACE, wait).await;
    takeover::end_process(&started.handle, Role::Node).await;
    limits::remove_unused(&record.instance);
    result.context("node did not stop all guests and containers in time")?
}
