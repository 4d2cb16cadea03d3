//! `evrocd pki rotate` in a running cloud: every stage is carried out here, and loaded by all roles before the next one.
//!
//! Whatever ends the supervisor meanwhile, its successor finishes the rotation before it starts the roles.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use evroc_iam::rotation::Rotation;
use tokio::sync::mpsc;

use super::events::sleep_until;
use super::protocol::{Reply, Request};
use super::{Event, Supervisor, server};
use crate::bootstrap;

impl Supervisor {
    /// Rotates, and answers.
    pub(super) async fn rotate(&mut self, overlap: Duration, is_held: bool, reply: &mpsc::Sender<Reply>) {
        let answer = match self.try_rotate(overlap, is_held, reply).await {
            Ok(message) => Reply::Done { message },
            Err(error) => {
                let message = format!("{error:#}; `evrocd pki rotate` goes on where it was");
                tracing::error!(message, "cannot rotate the authority");
                Reply::Error { message }
            }
        };
        let _ = reply.send(answer).await;
    }

    async fn try_rotate(
        &mut self,
        overlap: Duration,
        is_held: bool,
        reply: &mpsc::Sender<Reply>,
    ) -> anyhow::Result<String> {
        let files = bootstrap::pki_files(&self.record);
        let mut rotation = Some(files.begin(overlap, is_held, SystemTime::now())?);
        while let Some(current) = rotation.take_if(|rotation| rotation.goes_on()) {
            let done = bootstrap::carry_out(&self.record, &current, SystemTime::now())
                .with_context(|| format!("stage {:?}", current.stage))?;
            for note in done.notes {
                tracing::info!(note);
                let _ = reply.send(Reply::Progress { message: note }).await;
            }
            if done.must_load {
                self.load_everywhere().await;
            }
            rotation = files.finish_stage(current)?;
        }
        // What is no longer trusted is left out now, and the pause until the next look is another one.
        self.renew_certificates();
        self.wait_for_loads().await;
        Ok(outcome(rotation.as_ref(), &self.record.layout().public_authority()))
    }

    async fn load_everywhere(&mut self) {
        self.load_certificates(|_| true);
        self.wait_for_loads().await;
    }

    /// Waits until every role that runs has loaded its files; one that does not is started again, and reads them then.
    async fn wait_for_loads(&mut self) {
        let mut deferred = Vec::new();
        while self.roles.values().any(|slot| slot.started.is_some() && slot.loading.is_some()) {
            let retry = Instant::now() + Duration::from_secs(1);
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Exited { role, generation, ended }) => drop(self.note_exit(role, generation, ended)),
                    Some(Event::Reported { role, generation, report }) => self.note_report(role, generation, &report),
                    Some(Event::ClientRequest(request)) => deferred.extend(self.answer_or_defer(request).await),
                    None => return,
                },
                () = sleep_until(Some(retry)) => self.end_roles_that_do_not_load(),
            }
        }
        let queue = self.queue.clone();
        tokio::spawn(async move {
            for request in deferred {
                let _ = queue.send(Event::ClientRequest(request)).await;
            }
        });
    }

    async fn answer_or_defer(&self, request: server::ClientRequest) -> Option<server::ClientRequest> {
        if request.request != Request::Status {
            return Some(request);
        }
        let _ = request.reply.send(Reply::Status(Box::new(self.status(request.is_privileged)))).await;
        None
    }
}

/// The result of a rotation, for its caller.
pub fn outcome(rotation: Option<&Rotation>, trusted: &std::path::Path) -> String {
    match rotation {
        None => "every certificate of the cloud is the new authority's; `evrocd pki status` shows until when the old one is trusted".into(),
        Some(_) => format!(
            "both authorities are trusted and the old one still signs: bring {} to the clients on other machines, then run `evrocd pki rotate`",
            trusted.display()
        ),
    }
}
