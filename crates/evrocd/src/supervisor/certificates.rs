//! Certificates of a running instance: renewed when due, and loaded by the roles without a restart.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Supervisor;
use crate::bootstrap;
use crate::roles::{Command, Role};

/// How often certificates are looked at when none is due: a clock that was set, or a file that was removed, is noticed by then.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// The pause before another look after one that failed. A renewal is due ten days before the end.
const RETRY: Duration = Duration::from_secs(60);
/// How long a role gets to load its certificates before it is started again: it reads a few files.
const LOAD: Duration = Duration::from_secs(15);

/// How long until certificates are looked at next, when the first of them is to be renewed at `renewal` (seconds since 1970).
pub(super) fn next_check(renewal: i64, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let due = Duration::from_secs(u64::try_from(renewal).unwrap_or_default());
    due.saturating_sub(now).min(LONGEST_PAUSE)
}

impl Supervisor {
    /// Renews due certificates and has the roles load them.
    pub(super) fn renew_certificates(&mut self) {
        let now = SystemTime::now();
        match bootstrap::ensure_certificates(&self.record, now) {
            Ok(certificates) => {
                // Kubeconfigs too, by the same rule: a cloud may run for longer than they live.
                let users = bootstrap::refresh_user_files(&self.record, &certificates.trust, now);
                for note in certificates.notes.into_iter().chain(users) {
                    tracing::info!(note);
                }
                self.load_certificates(|role| certificates.changed.contains(&role));
                if certificates.trust_ended {
                    self.end_connections();
                }
                self.next_renewal = Instant::now() + next_check(certificates.renewal, now);
            }
            Err(error) => {
                tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "cannot renew the certificates");
                self.next_renewal = Instant::now() + RETRY;
            }
        }
    }

    /// Ends control, which is started again at once: it would go on with connections that a former authority's certificate let in.
    pub(super) fn end_connections(&self) {
        if let Some(started) = &self.roles[&Role::Control].started {
            let _ = started.handle.signal(rustix::process::Signal::TERM);
        }
    }

    /// Has some of the running roles load their certificates.
    pub(super) fn load_certificates(&mut self, is_meant: impl Fn(Role) -> bool) {
        self.loads += 1;
        let number = self.loads;
        for (role, slot) in self.roles.iter_mut().filter(|(role, _)| is_meant(**role)) {
            let Some(started) = &slot.started else { continue };
            if let Err(error) = started.commands.try_send(Command::LoadCertificates { number }) {
                tracing::error!(%role, %error, "cannot have the role load its certificates: it is started again");
                let _ = started.handle.signal(rustix::process::Signal::TERM);
            }
            slot.loading = Some((number, Instant::now()));
        }
    }

    /// Ends roles that were to load certificates and did not report that they have; they are started again, with the new ones.
    pub(super) fn end_roles_that_do_not_load(&mut self) {
        for (role, slot) in &self.roles {
            if let (Some(started), Some((_, since))) = (&slot.started, slot.loading)
                && since.elapsed() > LOAD
            {
                tracing::error!(%role, "the role does not load its certificates: it is started again");
                let _ = started.handle.signal(rustix::process::Signal::TERM);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_looked_at_when_the_first_is_due_and_a_few_times_a_day() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (renewal, want) in [
            (1_000_007, 7),
            (1_000_000, 0),
            (5, 0),
            (-5, 0),
            (1_021_600, 21_600),
            (9_000_000, 21_600),
            (i64::MAX, 21_600),
        ] {
            assert_eq!(next_check(renewal, now), Duration::from_secs(want), "{renewal}");
        }
    }
}
