//! Finds what a run leaves behind on the machine: processes, control groups, namespaces, links, rules, mounts and files.
//!
//! A [`Snapshot`] is taken before and one after; what is new is a leftover, and the run fails with its name. Other clouds may
//! come and go on the same machine meanwhile: what belongs to a *foreign* instance (a registered one whose name is not a test's)
//! does not count, nor does what the system itself makes. Named caches (`/var/cache/evroc`) are not looked at.
//!
//! Run it as root: an ordinary user does not see the processes, namespaces and rules of others.

mod cgroups;
mod files;
mod foreign;
mod network;
pub mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use foreign::{Foreign, REGISTRY, link_prefix};

/// The class of a leftover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// A process that a test started, or a child of it.
    Process,
    /// A control group, in any hierarchy.
    Cgroup,
    /// A named network namespace.
    NetworkNamespace,
    /// A network link of the host.
    Link,
    /// An nftables table of the host.
    NftTable,
    /// A mount.
    Mount,
    /// A file or folder: state, run files, instance files, temporary files.
    File,
    /// A line of /etc/hosts.
    HostsLine,
}

impl Class {
    /// Its name in reports.
    pub fn noun(self) -> &'static str {
        match self {
            Class::Process => "process",
            Class::Cgroup => "control group",
            Class::NetworkNamespace => "network namespace",
            Class::Link => "network link",
            Class::NftTable => "nftables table",
            Class::Mount => "mount",
            Class::File => "file",
            Class::HostsLine => "line in /etc/hosts",
        }
    }
}

/// The state of the machine at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    items: BTreeMap<Class, BTreeSet<String>>,
}

/// A resource that did not exist before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its class.
    pub class: Class,
    /// Its name: a path, a name, or a process with its command line.
    pub item: String,
}

impl fmt::Display for Leftover {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.class.noun(), self.item)
    }
}

impl Snapshot {
    /// Looks at the machine. A source that cannot be read (no nft, no such folder) counts as empty.
    pub fn take() -> Snapshot {
        let mut items = BTreeMap::new();
        items.insert(Class::Process, processes::list());
        items.insert(Class::Cgroup, cgroups::list());
        items.insert(Class::NetworkNamespace, network::namespaces());
        items.insert(Class::Link, network::links());
        items.insert(Class::NftTable, network::nft_tables());
        items.insert(Class::Mount, files::mounts());
        items.insert(Class::File, files::list());
        items.insert(Class::HostsLine, files::hosts_lines());
        Snapshot { items }
    }

    /// Returns what this snapshot has and `before` has not, without what belongs to foreign instances.
    pub fn since(&self, before: &Snapshot, foreign: &Foreign) -> Vec<Leftover> {
        let nothing = BTreeSet::new();
        let mut leftovers = Vec::new();
        for (class, items) in &self.items {
            let known = before.items.get(class).unwrap_or(&nothing);
            let new = items.difference(known).filter(|item| !foreign.owns(*class, item));
            // Instances make their groups at the top: groups below another's folder are that one's.
            let new = new.filter(|item| *class != Class::Cgroup || !known.contains(cgroups::top(item)));
            leftovers.extend(new.map(|item| Leftover { class: *class, item: item.clone() }));
        }
        leftovers
    }

    /// Returns what belongs to one instance, by name: its purge has to leave none of it.
    pub fn of_instance(&self, instance: &str) -> Vec<Leftover> {
        let owner = Foreign::of(&[instance]);
        let all = self.items.iter().flat_map(|(class, items)| items.iter().map(|item| (*class, item)));
        all.filter(|(class, item)| owner.owns(*class, item))
            .map(|(class, item)| Leftover { class, item: item.clone() })
            .collect()
    }
}

#[cfg(test)]
mod tests;
