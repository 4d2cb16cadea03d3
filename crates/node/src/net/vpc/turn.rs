//! One turn of a VPC's owner: reads the desired state, changes it as requested, and makes the namespace like it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evroc_api::conditions::Verdict;
use evroc_controller::chain;

use super::Host;
use super::kernel::Held;
use super::plan::taps;
use super::record::Record;
use super::state::{Ask, Known, Left, State};
use crate::agent::host::Topic;
use crate::io::blocking;
use crate::net::dhcp::server::DhcpServer;
use crate::net::error::NetworkError;
use crate::net::network::{PortSpec, TapState, VpcSpec};
use crate::net::uplink::Uplink;
use crate::uid::Uid;

/// How long after its first failure a VPC is set up again; doubled with each failure in a row. Less costs processes for nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause. More leaves machines without network after the cause was removed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a namespace is made like its record although nothing changed. Less often leaves manual damage unrepaired;
/// more often costs four processes a VPC each time.
const CHECK: Duration = Duration::from_secs(300);

/// One turn of an owner.
pub(super) struct VpcTurn<'a> {
    pub(super) host: &'a Arc<Host>,
    pub(super) uid: &'a Uid,
    pub(super) state: &'a mut State,
}

impl VpcTurn<'_> {
    /// Carries out a request; returns true if nothing of the VPC is left.
    pub(super) async fn carry_out(mut self, request: Ask) -> bool {
        let loaded = self.load().await;
        // The caller may have stopped waiting; the request is carried out all the same.
        match request {
            Ask::Converge(reply) => {
                let done = self.converge_as_is(loaded).await;
                let _ = reply.send(done);
            }
            Ask::EnsurePort(vpc, port, reply) => {
                let done = match loaded {
                    Ok(()) => self.ensure_port(&vpc, port).await,
                    Err(error) => Err(error),
                };
                let _ = reply.send(done);
            }
            Ask::OpenTap(machine, reply) => {
                let done = self.open_tap(&machine).await;
                let _ = reply.send(done);
            }
            Ask::RemovePort(machine, reply) => {
                let done = self.remove_port(&machine).await;
                let _ = reply.send(done);
            }
            Ask::Remove(reply) => {
                let done = self.remove().await;
                let is_removed = done.is_ok();
                let _ = reply.send(done);
                return is_removed;
            }
            Ask::Upkeep => return self.upkeep(loaded).await,
        }
        matches!(self.state.known, Known::NotLoaded | Known::Nothing)
    }

    /// Reads the desired state, once.
    async fn load(&mut self) -> Result<(), NetworkError> {
        if !matches!(self.state.known, Known::NotLoaded) {
            return Ok(());
        }
        let loaded = self.host.records.load(self.uid);
        if let Ok(Some(record)) = loaded {
            self.state.empty_since = record.ports.is_empty().then(Instant::now);
            let taps = record.ports.keys().map(|machine| self.host.kernel.names.tap(machine)).collect();
            self.state.held = Held { taps, slot: record.transit_slot };
            self.state.known = Known::Record(record);
            return Ok(());
        }
        // Machines may live in a namespace that no readable record explains.
        let found = self.taps_found(Held::default()).await?;
        let why = match loaded {
            Err(error) => error,
            Ok(_) if found.is_empty() => {
                self.state.known = Known::Nothing;
                return Ok(());
            }
            Ok(_) => NetworkError::NoRecord { vpc: self.uid.to_string() },
        };
        let is_newer = matches!(why, NetworkError::NewerRecord { .. });
        tracing::warn!(vpc = self.uid.as_str(), error = chain(&why), "a VPC's record is left alone");
        let reason = if is_newer { "RecordIsNewer" } else { "RecordUnreadable" };
        self.report(Topic::RecordsReadable, Some(Verdict::no(reason, chain(&why))));
        self.state.known = Known::Left(Left { why: Arc::new(why), is_newer, ports: BTreeMap::new() });
        Ok(())
    }

    /// The taps in the VPC's namespace, which is looked for if it is not known yet: also by processes that hold one of them.
    async fn taps_found(&mut self, held: Held) -> Result<BTreeSet<String>, NetworkError> {
        let (host, uid, known) = (self.host.clone(), self.uid.clone(), self.state.netns.clone());
        let (netns, found) = blocking(move || {
            let netns = match known {
                Some(netns) => Some(netns),
                None => {
                    let legacy_is_others = host.records.legacy_is_others(&uid);
                    host.kernel.find_namespace(&uid, legacy_is_others, &held)?.map(Arc::new)
                }
            };
            let links = netns.as_ref().map(|netns| host.kernel.links(netns)).transpose()?.unwrap_or_default();
            let found = taps(&host.kernel.names, &links).map(str::to_owned).collect();
            Ok::<_, NetworkError>((netns, found))
        })
        .await?;
        self.state.netns = netns;
        Ok(found)
    }

    /// Makes the VPC like its record, from any state.
    async fn converge_as_is(&mut self, loaded: Result<(), NetworkError>) -> Result<(), NetworkError> {
        loaded?;
        self.state.standing = None;
        match &self.state.known {
            Known::Record(record) => self.converge(record.clone()).await,
            // No machine is in it, and no record explains it.
            Known::Nothing => self.remove().await,
            Known::NotLoaded | Known::Left(_) => Ok(()),
        }
    }

    async fn ensure_port(&mut self, vpc: &VpcSpec, port: PortSpec) -> Result<TapState, NetworkError> {
        let tap = self.host.kernel.names.tap(&port.machine_uid);
        if let Known::Left(_) = self.state.known
            && !self.recover(vpc, &port, &tap).await?
        {
            return Ok(TapState::Present);
        }
        let mut record = match &self.state.known {
            Known::Record(record) => record.clone(),
            _ => Record::new(vpc),
        };
        let names = &self.host.kernel.names;
        let same_link = record.ports.keys().find(|uid| **uid != port.machine_uid && names.tap(uid) == tap);
        if let Some(owner) = same_link {
            return Err(NetworkError::NameTaken { link: tap, owner: owner.clone(), other: port.machine_uid });
        }
        record.set_vpc(vpc);
        record.ports.insert(port.machine_uid.clone(), port);
        self.state.empty_since = None;
        self.converge(record).await?;
        let is_present = self.state.standing.as_ref().is_some_and(|standing| standing.taps.contains_key(&tap));
        Ok(if is_present { TapState::Present } else { TapState::Absent })
    }

    /// Writes the record of a VPC again, as soon as no tap in its namespace is an unknown machine's. True if it was written; false if
    /// the machine has its tap and keeps it.
    async fn recover(&mut self, vpc: &VpcSpec, port: &PortSpec, tap: &str) -> Result<bool, NetworkError> {
        let found = self.taps_found(Held { taps: vec![tap.to_owned()], slot: None }).await?;
        let Known::Left(left) = &mut self.state.known else { return Ok(true) };
        left.ports.insert(port.machine_uid.clone(), port.clone());
        let known: BTreeSet<String> = left.ports.keys().map(|uid| self.host.kernel.names.tap(uid)).collect();
        if left.is_newer || !found.is_subset(&known) {
            let error = NetworkError::Unreadable { vpc: self.uid.to_string(), source: left.why.clone() };
            return if found.contains(tap) { Ok(false) } else { Err(error) };
        }
        let mut record = Record::new(vpc);
        record.ports = left.ports.clone();
        if self.host.kernel.config.uplink != Uplink::None
            && let Some(netns) = self.state.netns.clone()
        {
            let kernel = self.host.kernel.clone();
            let slot = blocking(move || kernel.slot_of(&netns)).await?;
            record.transit_slot = slot.filter(|slot| self.host.claims.claim_slot(self.uid, *slot));
        }
        tracing::warn!(vpc = self.uid.as_str(), machines = record.ports.len(), "a VPC's record is written again");
        self.state.known = Known::Record(record);
        self.report(Topic::RecordsReadable, None);
        let legacy = format!("VPC record {}", self.host.kernel.names.legacy_netns(self.uid));
        self.host.conditions().clear(Topic::RecordsReadable, &legacy);
        Ok(true)
    }

    async fn open_tap(&mut self, machine: &str) -> Result<OwnedFd, NetworkError> {
        let record = match &self.state.known {
            Known::Record(record) if record.ports.contains_key(machine) => record.clone(),
            _ => return Err(NetworkError::UnknownPort { vpc: self.uid.to_string(), machine: machine.to_owned() }),
        };
        if self.state.netns.is_none() {
            self.converge(record.clone()).await?;
        }
        let unknown = || NetworkError::UnknownPort { vpc: self.uid.to_string(), machine: machine.to_owned() };
        let netns = self.state.netns.clone().ok_or_else(unknown)?;
        let (kernel, machine) = (self.host.kernel.clone(), machine.to_owned());
        let fd = blocking(move || kernel.create_tap(&netns, &machine)).await?;
        // The tap is down: now the namespace is made right with it, and it comes up last.
        self.converge(record).await?;
        Ok(fd)
    }

    async fn remove_port(&mut self, machine: &str) -> Result<(), NetworkError> {
        let mut record = match &mut self.state.known {
            Known::Record(record) => record.clone(),
            Known::Left(left) => {
                left.ports.remove(machine);
                return Ok(());
            }
            Known::NotLoaded | Known::Nothing => return Ok(()),
        };
        let was_there = record.ports.remove(machine).is_some();
        if let Some(netns) = self.state.netns.clone().filter(|_| was_there) {
            let (kernel, link) = (self.host.kernel.clone(), self.host.kernel.names.tap(machine));
            // A hypervisor that is still ending must not keep the link.
            blocking(move || kernel.remove_link(&netns, &link)).await?;
        }
        if record.ports.is_empty() && self.state.empty_since.is_none() {
            self.state.empty_since = Some(Instant::now());
        }
        self.converge(record).await
    }

    /// Makes the namespace like the record, and keeps the record. The one path that creates and repairs.
    async fn converge(&mut self, record: Record) -> Result<(), NetworkError> {
        let pause = self.state.looked.filter(|_| self.state.standing.is_none()).map(|(_, pause)| pause);
        let converged = self.try_converge(record).await;
        let pause = match &converged {
            Ok(()) => CHECK,
            Err(_) => pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE)),
        };
        self.state.looked = Some((Instant::now(), pause));
        let verdict = converged.as_ref().err().map(|error| Verdict::no("CannotConverge", chain(error)));
        self.report(Topic::NetworksConverged, verdict);
        converged
    }

    async fn try_converge(&mut self, mut record: Record) -> Result<(), NetworkError> {
        let (host, uid) = (self.host, self.uid);
        if host.kernel.config.uplink != Uplink::None {
            let outer = host.kernel.names.outer_uplink(uid);
            let taken = |owner| NetworkError::NameTaken { link: outer.clone(), owner, other: uid.to_string() };
            host.claims.claim_link(uid, &outer).map_err(taken)?;
        }
        if let Some(slot) = record.transit_slot.filter(|slot| !host.claims.claim_slot(uid, *slot)) {
            tracing::warn!(
                vpc = uid.as_str(),
                slot,
                "another VPC has the transit addresses of this one: it gets others"
            );
            record.transit_slot = None;
        }
        if record.transit_slot.is_none() && host.kernel.config.uplink != Uplink::None {
            let (host, uid) = (host.clone(), uid.clone());
            let free = move || host.kernel.free_slot(&uid, |slot| host.claims.claim_slot(&uid, slot));
            record.transit_slot = Some(blocking(free).await?);
        }
        // Before the kernel is touched, so that a new process knows what may be in it.
        let (netns, standing) = (self.state.netns.clone(), self.state.standing.take());
        let legacy_is_others = netns.is_none() && host.records.legacy_is_others(uid);
        if standing.as_ref().is_none_or(|standing| standing.record != record) {
            host.records.keep(uid, &record)?;
        }
        self.state.known = Known::Record(record.clone());
        let (kernel, owner, wanted, held) = (host.kernel.clone(), uid.clone(), record.clone(), self.state.held.clone());
        let (netns, standing) =
            blocking(move || kernel.apply(&owner, &wanted, (legacy_is_others, &held), netns, standing)).await?;
        self.state.netns = Some(netns.clone());
        self.state.held = Held::default();
        let dhcp = match &mut self.state.dhcp {
            Some(dhcp) => dhcp,
            none => {
                let failed = |source| NetworkError::Dhcp { vpc: uid.to_string(), source };
                none.insert(DhcpServer::start(&netns).map_err(failed)?)
            }
        };
        dhcp.set_leases(host.kernel.leases(&record));
        let mut standing = standing;
        if !record.previous.is_empty() {
            // The kernel has nothing of it any more.
            record.previous.clear();
            host.records.keep(uid, &record)?;
            standing.record = record.clone();
            self.state.known = Known::Record(record);
        }
        self.state.standing = Some(standing);
        Ok(())
    }

    /// Does the due work; returns true if nothing of the VPC is left.
    async fn upkeep(&mut self, loaded: Result<(), NetworkError>) -> bool {
        let is_over = self.state.empty_since.is_some_and(|since| since.elapsed() >= self.host.linger);
        if is_over {
            return match self.remove().await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(
                        vpc = self.uid.as_str(),
                        error = chain(&error),
                        "cannot remove a VPC without machines"
                    );
                    self.state.empty_since = Some(Instant::now());
                    false
                }
            };
        }
        let is_due = self.state.looked.is_none_or(|(at, pause)| at.elapsed() >= pause);
        if is_due && let Err(error) = self.converge_as_is(loaded).await {
            tracing::warn!(vpc = self.uid.as_str(), error = chain(&error), "cannot set up a VPC, will be tried again");
        }
        matches!(self.state.known, Known::NotLoaded | Known::Nothing)
    }

    /// Removes the VPC from this host with everything in it.
    async fn remove(&mut self) -> Result<(), NetworkError> {
        self.state.dhcp = None;
        self.state.standing = None;
        let (host, uid, netns) = (self.host.clone(), self.uid.clone(), self.state.netns.take());
        blocking(move || {
            host.kernel.remove_namespace(&uid, netns.as_deref())?;
            host.records.remove(&uid)
        })
        .await?;
        self.host.claims.release(self.uid);
        self.report(Topic::NetworksConverged, None);
        self.report(Topic::RecordsReadable, None);
        self.state.known = Known::Nothing;
        self.state.empty_since = None;
        Ok(())
    }

    fn report(&self, topic: Topic, fault: Option<Verdict>) {
        let part = format!("VPC {}", self.uid);
        match fault {
            Some(verdict) => {
                self.host.conditions().set(topic, part, verdict);
            }
            None => self.host.conditions().clear(topic, &part),
        }
    }
}
