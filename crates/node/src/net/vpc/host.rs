//! The parts that all VPCs of a host share: settings of the host itself, and the list of VPCs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evroc_api::conditions::Verdict;

use super::claims::Claims;
use super::kernel::Kernel;
use super::plan::taps;
use super::record::Records;
use super::state::{View, Vpc};
use crate::agent::host::{HostConditions, Topic};
use crate::dial::Dialer;
use crate::net::command::nft;
use crate::net::error::{NetworkError, file};
use crate::net::folder;
use crate::net::netns::Netns;
use crate::net::rules::{host_table, remove_table};
use crate::net::uplink::{Uplink, allow_forwarding, restore_forwarding, uses_forwarding};
use crate::shim::boot_id;
use crate::uid::Uid;

/// The state that owners of VPCs share.
pub(super) struct Host {
    pub(super) kernel: Kernel,
    pub(super) records: Records,
    pub(super) claims: Claims,
    pub(super) dialer: Dialer,
    pub(super) linger: Duration,
    /// Never locked across waiting.
    vpcs: Mutex<BTreeMap<String, Arc<Vpc>>>,
}

impl Host {
    pub(super) fn new(kernel: Kernel, records: Records, dialer: Dialer) -> Result<Self, NetworkError> {
        let state = &kernel.config.state_dir;
        std::fs::create_dir_all(state).map_err(file("create folder", state))?;
        let linger = kernel.config.linger;
        Ok(Self { kernel, records, claims: Claims::default(), dialer, linger, vpcs: Mutex::default() })
    }

    pub(super) fn conditions(&self) -> &HostConditions {
        &self.kernel.config.conditions
    }

    fn vpcs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Vpc>>> {
        self.vpcs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VPC; a new one that nothing is known of if there was none.
    pub(super) fn vpc(&self, uid: &Uid) -> Arc<Vpc> {
        self.vpcs().entry(uid.to_string()).or_default().clone()
    }

    /// Drops what this process keeps of a VPC.
    pub(super) fn forget(&self, uid: &Uid) {
        self.vpcs().remove(uid.as_str());
    }

    /// Returns the visible state of a VPC on this host.
    pub(super) fn view(&self, uid: &str) -> Option<View> {
        self.vpcs().get(uid).map(|vpc| vpc.view().clone())
    }

    /// Returns the visible state of all of them.
    pub(super) fn views(&self) -> BTreeMap<String, View> {
        self.vpcs().iter().map(|(uid, vpc)| (uid.clone(), vpc.view().clone())).collect()
    }

    /// The VPCs for which something is due.
    pub(super) fn due(&self, now: Instant) -> Vec<String> {
        let due = self.views().into_iter().filter(|(_, view)| view.due.is_some_and(|due| due <= now));
        due.map(|(uid, _)| uid).collect()
    }

    /// Prepares the host: the folder of the namespaces, and the settings for a way out through the host.
    pub(super) fn prepare(&self) -> Result<(), NetworkError> {
        folder::prepare(&self.kernel.folder())?;
        if self.kernel.config.uplink != Uplink::Host {
            return self.restore_settings();
        }
        let boot = boot_id().map_err(file("read", Path::new("boot_id")))?;
        let names = &self.kernel.names;
        // Rules first: nothing is forwarded before they are in place.
        let table = host_table(names.table(), &names.outer_uplink_pattern(), self.kernel.config.transit);
        nft(&Netns::current()?, &table)?;
        allow_forwarding(&self.kernel.config.instance, boot).map_err(file("allow", Path::new("ip_forward")))
    }

    /// Reports whether the host as a whole could be prepared.
    pub(super) fn report_preparation(&self, outcome: &Result<(), NetworkError>) {
        /// The part of the condition that is about the host and no VPC.
        const PART: &str = "host";
        match outcome {
            Ok(()) => self.conditions().clear(Topic::NetworksConverged, PART),
            Err(error) => {
                let message = evroc_controller::chain(error);
                let verdict = Verdict::no("HostNotPrepared", message.clone());
                if self.conditions().set(Topic::NetworksConverged, PART, verdict) {
                    tracing::error!(error = message, "cannot prepare the host's network, will be tried again");
                }
            }
        }
    }

    /// Uids of the VPCs that have a record or a namespace on this host. Claims what readable records have, so that no VPC is given what
    /// another one holds, and reports the records that cannot be read.
    pub(super) fn known_vpcs(&self) -> Result<Vec<String>, NetworkError> {
        let mut known = Vec::new();
        for entry in self.records.list()? {
            match entry.outcome {
                Ok(record) => {
                    let uid = record.vpc.uid.clone();
                    if let Some(slot) = record.transit_slot {
                        self.claims.claim_slot(&uid, slot);
                    }
                    // A name that is taken is reported by the owner, when it sets the VPC up.
                    let _ = self.claims.claim_link(&uid, &self.kernel.names.outer_uplink(&uid));
                    known.push(uid);
                }
                // Its owner is known when a machine of the VPC is reconciled.
                Err(error) if self.kernel.names.is_legacy_netns(&entry.stem) => {
                    let message = evroc_controller::chain(&error);
                    tracing::warn!(record = entry.stem, error = message, "a VPC's record is left alone");
                    let verdict = Verdict::no("RecordUnreadable", message);
                    self.conditions().set(Topic::RecordsReadable, format!("VPC record {}", entry.stem), verdict);
                }
                Err(_) => known.push(entry.stem),
            }
        }
        let namespaces = folder::list(&self.kernel.folder()).into_iter();
        known.extend(namespaces.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
        known.retain(|uid| uid.parse::<Uid>().is_ok());
        self.conditions().set(
            Topic::RecordsReadable,
            "VPCs",
            Verdict::yes("AllRead", "every record on this host was read"),
        );
        self.conditions().set(
            Topic::NetworksConverged,
            "VPCs",
            Verdict::yes("Converged", "every VPC on this host matches its record"),
        );
        Ok(known)
    }

    /// Removes the namespaces of earlier versions that no machine lives in. Those with machines were taken over, or their record cannot be
    /// read: then they stay until it is known which VPC they are.
    pub(super) fn remove_unused_legacy_namespaces(&self) -> Result<(), NetworkError> {
        for path in self.kernel.legacy_namespaces() {
            let has_machines = match Netns::open(&path) {
                Ok(netns) => taps(&self.kernel.names, &self.kernel.links(&netns)?).next().is_some(),
                Err(_) => false,
            };
            if !has_machines {
                Netns::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes leftovers of the VPCs: namespaces, records, settings of the host.
    pub(super) fn remove_leftovers(&self) -> Result<(), NetworkError> {
        for path in folder::list(&self.kernel.folder()).into_iter().chain(self.kernel.legacy_namespaces()) {
            Netns::remove(&path)?;
        }
        folder::remove(&self.kernel.folder())?;
        self.restore_settings()?;
        self.records.remove_all()
    }

    /// Reverts the settings for a way out through the host.
    fn restore_settings(&self) -> Result<(), NetworkError> {
        let failed = file("restore", Path::new("ip_forward"));
        let instance = &self.kernel.config.instance;
        if uses_forwarding(instance).map_err(&failed)? {
            nft(&Netns::current()?, &remove_table(self.kernel.names.table()))?;
            let boot = boot_id().map_err(file("read", Path::new("boot_id")))?;
            restore_forwarding(instance, boot).map_err(&failed)?;
        }
        Ok(())
    }
}
