//! Machines on this host that the API does not list.
//!
//! They are not ended for that: a store that was restored from a backup lacks everything created since. Such a machine runs on in
//! quarantine, named in the host's condition `NoOrphans`, until it is listed again or may go: its deletion was seen by this host (and it
//! was interrupted while it removed the rest), or an operator names it in [`END_MACHINES`].

use std::collections::BTreeSet;
use std::time::Duration;

use evroc_api::conditions::Verdict;
use evroc_api::infra::Host;
use evroc_controller::{Result, api_error, chain, get};
use kube::ResourceExt;
use kube::api::Api;

use super::step::part;
use super::{Machines, Work};
use crate::agent::host::Topic;
use crate::machine::owner::Order;

/// The annotation of a Host by which an operator has machines ended that the API does not list: their uids, separated by commas.
pub const END_MACHINES: &str = "infra.evroclabs.net/end-machines";
/// Between two sweeps. Longer shows a machine without an object later; each lists the machines of this host once.
const SWEEP_AGAIN: Duration = Duration::from_secs(60);

/// The treatment of a machine on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It has an object.
    Listed,
    /// It runs on and is reported.
    Quarantine,
    /// Its leftovers are removed.
    Remove,
}

/// Decides. Pure.
fn fate(is_listed: bool, deletion_was_seen: bool, operator_ends_it: bool) -> Fate {
    match (is_listed, deletion_was_seen || operator_ends_it) {
        (true, _) => Fate::Listed,
        (false, true) => Fate::Remove,
        (false, false) => Fate::Quarantine,
    }
}

impl Machines {
    /// Reports machines on this host without an object, and removes those that may be removed.
    pub async fn sweep(&self) -> Result<()> {
        // The host first: a machine that is created meanwhile is then listed, not the other way round.
        let known = match self.work.guests().list().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot list the machines of this host");
                return Ok(());
            }
        };
        let listed: BTreeSet<String> =
            self.list().await.map_err(api_error("list machines"))?.iter().filter_map(ResourceExt::uid).collect();
        let host = get(&Api::<Host>::all(self.base.client.clone()), &self.host).await?;
        let named = host.as_ref().and_then(|host| host.annotations().get(END_MACHINES)).cloned().unwrap_or_default();
        let ended: BTreeSet<String> = named.split(',').map(|uid| uid.trim().to_owned()).collect();
        self.work.sweep(&known, &listed, &ended).await;
        Ok(())
    }

    pub(super) async fn keep_swept(&self) {
        loop {
            tokio::time::sleep(SWEEP_AGAIN).await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = chain(&error), "cannot compare the machines of this host with the API");
            }
        }
    }
}

impl Work {
    pub(super) async fn sweep(&self, known: &BTreeSet<String>, listed: &BTreeSet<String>, ended: &BTreeSet<String>) {
        let mut left = BTreeSet::new();
        for uid in known {
            // A mark that cannot be read is none.
            let deletion_was_seen = self.guests().is_deleted(uid).await.unwrap_or(false);
            match fate(listed.contains(uid), deletion_was_seen, ended.contains(uid)) {
                Fate::Listed => self.conditions.clear(Topic::NoOrphans, &part(uid)),
                Fate::Quarantine => {
                    left.insert(uid);
                    let message = format!(
                        "is on this host but not in the API; it is left alone. To end it, annotate the host: {END_MACHINES}={uid}"
                    );
                    tracing::warn!(uid, "a machine on this host is not in the API; it is left alone");
                    self.conditions.set(Topic::NoOrphans, part(uid), Verdict::no("MachineNotInApi", message));
                }
                Fate::Remove => {
                    tracing::info!(uid, deletion_was_seen, "remove a machine that is not in the API");
                    match self.owned.ask(uid, Order::Remove).await {
                        Ok(_) => self.forget(uid),
                        Err(error) => {
                            left.insert(uid);
                            tracing::warn!(uid, error = chain(&error), "cannot remove a machine");
                        }
                    }
                }
            }
        }
        let fine = Verdict::yes("AllInApi", "every machine on this host has its object");
        self.conditions.set(Topic::NoOrphans, "machines", fine);
        for (vpc, machines) in self.network.ports().await {
            for uid in machines.into_iter().filter(|uid| !listed.contains(uid) && !left.contains(uid)) {
                if let Err(error) = self.network.remove_port(&vpc, &uid).await {
                    tracing::warn!(uid, error = chain(&error), "cannot remove a network port");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deletion_that_was_seen_or_an_operator_ends_a_machine() {
        for (is_listed, deletion_was_seen, operator_ends_it, expected) in [
            (true, false, false, Fate::Listed),
            (true, true, true, Fate::Listed),
            (false, false, false, Fate::Quarantine),
            (false, true, false, Fate::Remove),
            (false, false, true, Fate::Remove),
        ] {
            assert_eq!(fate(is_listed, deletion_was_seen, operator_ends_it), expected);
        }
    }
}
