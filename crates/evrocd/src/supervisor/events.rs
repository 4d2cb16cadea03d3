//! The supervisor's loop: what it waits for, and what each event changes.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::protocol::{Reply, Request};
use super::role::{self, Started};
use super::{Event, Stop, Supervisor, backoff, logs, reload};
use crate::process::Ended;
use crate::roles::{Report, Role, RoleConfig, RoleMode};
use crate::status::report::SupervisorState;

/// How often a role may die at the first start before the start is given up.
pub(super) const DEATHS_AT_START: u32 = 5;
/// How often log files are looked at.
const LOG_CHECK: Duration = Duration::from_secs(10);

impl Supervisor {
    /// The loop. Returns when the supervisor has to stop.
    pub(super) async fn serve(&mut self) -> anyhow::Result<Stop> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut log_check = tokio::time::interval(LOG_CHECK);
        loop {
            let next_start = self.roles.values().filter_map(|slot| slot.next_start).min();
            tokio::select! {
                _ = terminate.recv() => return Ok(Stop::Signal("SIGTERM")),
                _ = interrupt.recv() => return Ok(Stop::Signal("SIGINT")),
                _ = hangup.recv() => match self.is_detached {
                    true => tracing::info!("ignored SIGHUP"),
                    false => return Ok(Stop::Signal("SIGHUP")),
                },
                _ = log_check.tick() => {
                    self.rotate_logs(logs::LARGEST);
                    self.end_roles_that_do_not_load();
                }
                () = sleep_until(Some(self.next_renewal)) => self.renew_certificates(),
                () = sleep_until(next_start) => {
                    for role in Role::ALL {
                        if self.roles[&role].next_start.is_some_and(|at| at <= Instant::now()) {
                            self.spawn(role);
                        }
                    }
                }
                Some(event) = self.events.recv() => if let Some(stop) = self.handle(event).await {
                    return Ok(stop);
                },
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Option<Stop> {
        match event {
            Event::Exited { role, generation, ended } => {
                if !self.note_exit(role, generation, ended) {
                    return None;
                }
                let slot = &self.roles[&role];
                if self.state == SupervisorState::Starting && !slot.was_ready && slot.quick_deaths >= DEATHS_AT_START {
                    return Some(Stop::RoleFails(role));
                }
            }
            Event::Reported { role, generation, report } => self.note_report(role, generation, &report),
            Event::ClientRequest(client_request) => match client_request.request {
                Request::Status => {
                    let status = self.status(client_request.is_privileged);
                    let _ = client_request.reply.send(Reply::Status(Box::new(status))).await;
                }
                _ if !client_request.is_privileged => {
                    let message = "only root may do this: run it with sudo".to_owned();
                    let _ = client_request.reply.send(Reply::Error { message }).await;
                }
                Request::Reload => {
                    let error =
                        reload::replace_self(&self.record, &self.lock, &self.api, &self.https, self.is_detached);
                    let message = format!("cannot start the new program: {error}; the old one goes on");
                    tracing::error!(message);
                    let _ = client_request.reply.send(Reply::Error { message }).await;
                }
                Request::RotateAuthority { overlap_seconds, is_held } => {
                    self.rotate(Duration::from_secs(overlap_seconds), is_held, &client_request.reply).await;
                }
                Request::Down { timeout_seconds } => {
                    return Some(Stop::Down {
                        timeout: Duration::from_secs(timeout_seconds),
                        reply: client_request.reply,
                    });
                }
            },
        }
        None
    }

    /// Takes note of a role's end and plans its restart. False for the end of a process that was replaced already.
    pub(super) fn note_exit(&mut self, role: Role, generation: u64, ended: Option<Ended>) -> bool {
        let Some(slot) = self.roles.get_mut(&role) else { return false };
        let Some(started) = slot.started.take_if(|started| started.generation == generation) else { return false };
        // The next process reads the files as they are.
        slot.loading = None;
        let lived = started.at.elapsed();
        slot.quick_deaths = backoff::quick_deaths(slot.quick_deaths, lived);
        let delay = backoff::delay(slot.quick_deaths);
        slot.next_start = Some(Instant::now() + delay);
        let how = ended.map_or_else(|| "unknown".to_owned(), |ended| ended.to_string());
        tracing::warn!(%role, pid = started.handle.id.pid, how, lived_ms = lived.as_millis(), delay_ms = delay.as_millis(), "role ended");
        slot.last_exit = Some(how);
        true
    }

    pub(super) fn note_report(&mut self, role: Role, generation: u64, report: &Report) {
        let Some(slot) = self.roles.get_mut(&role) else { return };
        let Some(started) = slot.started.as_mut().filter(|started| started.generation == generation) else { return };
        match report {
            Report::Ready => {
                started.is_ready = true;
                slot.was_ready = true;
                tracing::info!(%role, after_ms = started.at.elapsed().as_millis(), "role is ready");
                let all_ready = self.roles.values().all(|slot| slot.is_ready());
                if all_ready && self.state == SupervisorState::Starting {
                    self.state = SupervisorState::Running;
                    let status = self.status(true);
                    self.progress.ready(status);
                }
            }
            Report::CertificatesLoaded { number, error } => {
                if slot.loading.is_some_and(|(waited_for, _)| waited_for == *number) {
                    slot.loading = None;
                }
                if let Some(error) = error {
                    tracing::error!(%role, error, "the role cannot load its certificates: it is started again");
                    let _ = started.handle.signal(rustix::process::Signal::TERM);
                }
            }
            Report::Progress { message } => tracing::info!(%role, message, "progress"),
            Report::Drained { stopped, killed } => tracing::info!(%role, stopped, killed, "drained"),
        }
    }

    /// Starts a role; a failure counts as a death.
    pub(super) fn spawn(&mut self, role: Role) {
        let result = self.try_spawn(role);
        let Some(slot) = self.roles.get_mut(&role) else { return };
        slot.next_start = None;
        match result {
            Ok(started) => {
                tracing::info!(%role, pid = started.handle.id.pid, "role started");
                self.record.roles.insert(role.name().to_owned(), started.handle.id);
                slot.restarts += u32::from(slot.was_started);
                slot.was_started = true;
                slot.started = Some(started);
                if let Err(error) = self.record.save() {
                    tracing::error!(%error, cause = %error.source, "cannot write the instance's record");
                }
            }
            Err(error) => {
                tracing::error!(%role, error = format!("{error:#}"), "cannot start the role");
                slot.quick_deaths = backoff::quick_deaths(slot.quick_deaths, Duration::ZERO).max(2);
                slot.next_start = Some(Instant::now() + backoff::delay(slot.quick_deaths));
                slot.last_exit = Some(format!("{error:#}"));
            }
        }
    }

    fn try_spawn(&mut self, role: Role) -> anyhow::Result<Started> {
        let config = self.role_config(role, RoleMode::Serve)?;
        let listeners = match role {
            Role::Control => vec![("EVROC_LISTEN_API", self.api.iter().map(AsFd::as_fd).collect())],
            Role::Edge => vec![("EVROC_LISTEN_HTTPS", self.https.iter().map(AsFd::as_fd).collect())],
            Role::Node => Vec::new(),
        };
        role::start(&self.record, role, &config, listeners, &self.queue)
    }

    pub(super) fn role_config(&self, role: Role, mode: RoleMode) -> anyhow::Result<RoleConfig> {
        let ports = self.record.ports.context("no ports were chosen")?;
        Ok(role::config(&self.record, role, mode, (ports.api.port, ports.https.port), &self.boot_id))
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
