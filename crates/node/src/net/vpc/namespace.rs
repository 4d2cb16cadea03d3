//! Finds, makes and removes the namespace of a VPC, also one that an earlier version or a former mount hides.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use super::kernel::{Held, Kernel};
use crate::net::error::NetworkError;
use crate::net::netns::Netns;
use crate::net::uplink::transit_pair;
use crate::net::{folder, holder};
use crate::uid::Uid;

/// The folder of namespaces in earlier versions; it belongs to `ip netns`.
const LEGACY_FOLDER: &str = "/run/netns";

impl Kernel {
    pub(super) fn netns_path(&self, uid: &Uid) -> PathBuf {
        self.folder().join(uid)
    }

    /// Paths of this instance's namespaces in the folder that earlier versions used.
    pub(super) fn legacy_namespaces(&self) -> Vec<PathBuf> {
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| self.names.is_legacy_netns(name))
        };
        folder::list(Path::new(LEGACY_FOLDER)).into_iter().filter(is_ours).collect()
    }

    fn legacy_netns_path(&self, uid: &Uid) -> PathBuf {
        Path::new(LEGACY_FOLDER).join(self.names.legacy_netns(uid))
    }

    /// Finds the namespace of a VPC: by its path, by the path that earlier versions used (unless `legacy_is_others`), or by a process that
    /// holds a tap of it. One that was not found at its path is mounted there.
    pub(super) fn find_namespace(
        &self,
        uid: &Uid,
        legacy_is_others: bool,
        held: &Held,
    ) -> Result<Option<Netns>, NetworkError> {
        let path = self.netns_path(uid);
        if let Some(netns) = open_if_present(&path)? {
            return Ok(Some(netns));
        }
        let legacy = if legacy_is_others { None } else { open_if_present(&self.legacy_netns_path(uid))? };
        // A guest still has a namespace that a later mount hides.
        let found = legacy.or_else(|| self.namespace_of_guests(held));
        let Some(netns) = found else { return Ok(None) };
        tracing::info!(vpc = uid.as_str(), from = %netns.path().display(), "takes over a VPC's network namespace");
        folder::prepare(&self.folder())?;
        netns.mount_at(&path)?;
        if !legacy_is_others {
            Netns::remove(&self.legacy_netns_path(uid))?;
        }
        Ok(Some(Netns::open(&path)?))
    }

    /// Finds the namespace that guests hold a tap of. The names of taps are made from a part of a hash, so another VPC may have one of
    /// the same name: a namespace that has a path is its VPC's, and the transit addresses have to be right.
    fn namespace_of_guests(&self, held: &Held) -> Option<Netns> {
        if held.taps.is_empty() {
            return None;
        }
        let paths = folder::list(&self.folder()).into_iter().chain(self.legacy_namespaces());
        let others: Vec<_> = paths.filter_map(|path| Netns::open(&path).ok()).collect();
        let has_slot = |netns: &Netns| {
            let bind = |slot| UdpSocket::bind((transit_pair(self.config.transit, slot).1, 0)).is_ok();
            held.slot.is_none_or(|slot| netns.run(|| bind(slot)).unwrap_or(false))
        };
        let found = holder::namespaces_of_taps(|tap| held.taps.iter().any(|wanted| wanted == tap));
        found.into_iter().find(|netns| !others.iter().any(|other| other.is_same(netns)) && has_slot(netns))
    }

    /// Finds the namespace of a VPC, or makes it.
    pub(super) fn namespace(&self, uid: &Uid, held: &Held, legacy_is_others: bool) -> Result<Netns, NetworkError> {
        match self.find_namespace(uid, legacy_is_others, held)? {
            Some(netns) => Ok(netns),
            None => {
                folder::prepare(&self.folder())?;
                Ok(Netns::ensure(&self.netns_path(uid))?)
            }
        }
    }

    /// Removes a VPC's namespace. Sockets and hypervisors may keep it alive after its name was removed, so the links that lead out are
    /// removed first.
    pub(super) fn remove_namespace(&self, uid: &Uid, netns: Option<&Netns>) -> Result<(), NetworkError> {
        let path = self.netns_path(uid);
        let opened = match netns {
            Some(_) => None,
            None => Netns::open(&path).ok(),
        };
        if let Some(netns) = netns.or(opened.as_ref()) {
            self.remove_link(netns, &self.names.inner_uplink(uid))?;
        }
        Ok(Netns::remove(&path)?)
    }
}

fn open_if_present(path: &Path) -> Result<Option<Netns>, NetworkError> {
    match Netns::open(path) {
        Ok(netns) => Ok(Some(netns)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
