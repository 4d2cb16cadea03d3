//! VPCs on this host: a network namespace each, with a tap per machine.
//!
//! ```text
//!  machine ─ tap ┐                 10.0.0.1/32 and proxy ARP on every tap, a /32 route to its machine
//!  machine ─ tap ┼─ routed, inet table ─ pair of links ─► uplink (or no way out)
//!  machine ─ tap ┘  DHCP server
//! ```
//! The desired state of a VPC is kept as a record in `/run/<instance>/vpcs/<uid>.json`, written before the kernel is touched. So
//! every call does the same: change the record, then make the namespace (`/run/<instance>/vpc-netns/<uid>`) like it; and an agent
//! that starts again ([`HostNetwork::resume`]) knows all ports at once and never renders rules with half of the machines.
//!
//! A tap lives by its descriptor, which the hypervisor has: it exists as long as the machine runs, independent of this process.
//! Rules are in place before a tap is up.

mod apply;
mod claims;
mod config;
mod host;
mod kernel;
mod namespace;
mod owner;
mod plan;
mod record;
mod settings;
mod state;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use evroc_controller::chain;
use futures::StreamExt;
use tokio::sync::oneshot;

pub use self::config::NetworkConfig;
use self::host::Host;
use self::kernel::Kernel;
use self::owner::VpcOwner;
use self::record::Records;
use self::state::Ask;
pub use super::error::NetworkError;
use super::names::Names;
use super::network::{Network, TapState};
pub use super::network::{PortSpec, VpcSpec};
use crate::dial::Dialer;
use crate::io::{BoxDuplex, blocking};
use crate::owner::{AskError, Owners};
use crate::uid::Uid;

/// How long a tap may be busy that should be free: a hypervisor that is ending, or a child of ours between fork and exec, which has a
/// copy of every descriptor for a moment.
const BUSY_DEADLINE: Duration = Duration::from_millis(500);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// How many VPCs are set up at a time when the agent starts. More make the start of many VPCs faster and take the processor from the
/// guests meanwhile.
const RESUMED_AT_ONCE: usize = 8;
/// How often VPCs are checked for due work: failures to try again, namespaces to check or to remove.
const UPKEEP: Duration = Duration::from_secs(1);

/// The VPCs of this host. Cheap to clone.
#[derive(Clone)]
pub struct HostNetwork {
    host: Arc<Host>,
    owners: Owners<VpcOwner>,
}

impl HostNetwork {
    /// Takes over from a previous process: namespaces that have a record are repaired and served; those that nothing lives in and no
    /// record explains are removed; those that cannot be read or set up are left alone and reported as conditions of the host.
    pub async fn resume(config: NetworkConfig, dialer: Dialer) -> Result<Self, NetworkError> {
        let names = Names::new(&config.instance);
        let records = Records::open(config.run_dir.join("vpcs"), names.clone())?;
        let host = Arc::new(Host::new(Kernel { config: Arc::new(config), names }, records, dialer)?);
        let weak = Arc::downgrade(&host);
        let owners = Owners::new(move |uid| VpcOwner { uid: uid.to_owned(), host: weak.clone() });
        let this = Self { host, owners };
        let has_begun = this.begin().await;
        this.keep_up(has_begun);
        Ok(this)
    }

    /// Prepares the host and sets up everything that is on it; returns whether the host is prepared. A host that cannot be, for example
    /// without `nft`, is reported, and what runs on it runs on.
    async fn begin(&self) -> bool {
        let host = self.host.clone();
        let prepared = blocking(move || host.prepare()).await;
        let converged = self.converge_all().await;
        let outcome = prepared.and(converged);
        self.host.report_preparation(&outcome);
        outcome.is_ok()
    }

    /// Sets up everything that is on this host. A VPC that fails is no reason not to set up the others.
    async fn converge_all(&self) -> Result<(), NetworkError> {
        let host = self.host.clone();
        let uids: BTreeSet<String> = blocking(move || host.known_vpcs()).await?.into_iter().collect();
        futures::stream::iter(uids)
            .for_each_concurrent(RESUMED_AT_ONCE, |uid| async move {
                if let Err(error) = self.ask(&uid, Ask::Converge).await {
                    tracing::warn!(vpc = uid, error = chain(&error), "cannot set up a VPC, will be tried again");
                }
            })
            .await;
        let host = self.host.clone();
        blocking(move || host.remove_unused_legacy_namespaces()).await
    }

    /// Wakes owners for due work, until the network is dropped.
    fn keep_up(&self, mut has_begun: bool) {
        let (host, owners) = (Arc::downgrade(&self.host), self.owners.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                let Some(host) = host.upgrade() else { return };
                if !has_begun {
                    has_begun = Self { host: host.clone(), owners: owners.clone() }.begin().await;
                }
                for uid in host.due(Instant::now()) {
                    let owners = owners.clone();
                    tokio::spawn(async move { owners.ask(&uid, Ask::Upkeep).await });
                }
            }
        });
    }

    /// Sends a request to the owner of a VPC.
    async fn ask<T>(
        &self,
        uid: &str,
        request: impl FnOnce(oneshot::Sender<Result<T, NetworkError>>) -> Ask,
    ) -> Result<T, NetworkError> {
        let lost = || NetworkError::OwnerEnded { vpc: uid.to_owned() };
        let (reply, answer) = oneshot::channel();
        match self.owners.ask(uid, request(reply)).await {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(lost())),
            Err(AskError::Failed(error)) => Err(Arc::try_unwrap(error).unwrap_or_else(|_| lost())),
            Err(AskError::Refused(_) | AskError::Lost) => Err(lost()),
        }
    }
}

#[async_trait]
impl Network for HostNetwork {
    async fn ensure_port(&self, vpc: &VpcSpec, port: &PortSpec) -> Result<TapState, NetworkError> {
        let uid: Uid = vpc.uid.parse()?;
        port.machine_uid.parse::<Uid>()?;
        let (vpc, port) = (vpc.clone(), port.clone());
        self.ask(&uid, |reply| Ask::EnsurePort(vpc, port, reply)).await
    }

    async fn open_tap(&self, vpc_uid: &str, machine_uid: &str) -> Result<OwnedFd, NetworkError> {
        let deadline = tokio::time::Instant::now() + BUSY_DEADLINE;
        loop {
            match self.ask(vpc_uid, |reply| Ask::OpenTap(machine_uid.to_owned(), reply)).await {
                Err(error) if error.is_busy() && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn remove_port(&self, vpc_uid: &str, machine_uid: &str) -> Result<(), NetworkError> {
        if self.host.view(vpc_uid).is_none() {
            return Ok(());
        }
        self.ask(vpc_uid, |reply| Ask::RemovePort(machine_uid.to_owned(), reply)).await
    }

    async fn ports(&self) -> BTreeMap<String, Vec<String>> {
        let with_ports = self.host.views().into_iter().filter(|(_, view)| !view.ports.is_empty());
        with_ports.map(|(uid, view)| (uid, view.ports)).collect()
    }

    async fn connect(&self, vpc_uid: &str, address: SocketAddr) -> io::Result<BoxDuplex> {
        let absent = || io::Error::new(io::ErrorKind::NotFound, format!("VPC {vpc_uid} is not on this host"));
        let netns = self.host.view(vpc_uid).and_then(|view| view.netns).ok_or_else(absent)?;
        Ok(Box::new(self.host.dialer.connect(&netns, address).await?))
    }

    async fn remove_all(&self) -> Result<(), NetworkError> {
        let mut first = Ok(());
        for uid in self.host.views().into_keys() {
            let removed = self.ask(&uid, Ask::Remove).await;
            if let Err(error) = &removed {
                tracing::warn!(vpc = uid, error = chain(error), "cannot remove a VPC");
            }
            first = first.and(removed);
        }
        let host = self.host.clone();
        first.and(blocking(move || host.remove_leftovers()).await)
    }
}
