//! A network in memory, for tests and simulated hosts: it keeps ports, refuses requests that the real one must never get, and fails
//! where a test plants a failure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use super::error::{NetworkError, file};
use super::network::{Network, PortSpec, TapState, VpcSpec};
use crate::io::BoxDuplex;

/// Bytes that a connection holds in each direction.
const CONNECTION_BUFFER: usize = 64 << 10;
/// The port of ssh servers.
const SSH: u16 = 22;
/// The greeting of the ssh server of a guest in memory.
const GREETING: &[u8] = b"SSH-2.0-imagined\r\n";

/// Whether the guest of the machine with this uid has an ssh server that greets.
type Greets = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// An operation that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    EnsurePort,
    OpenTap,
    RemovePort,
    Connect,
    RemoveAll,
}

/// The network of a simulated host. Cheap to clone; all clones are one network.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    vpcs: BTreeMap<String, Vpc>,
    violations: Vec<String>,
    failures: HashMap<Operation, u32>,
    listeners: HashMap<(String, SocketAddr), mpsc::UnboundedSender<DuplexStream>>,
    greets: Option<Greets>,
}

struct Vpc {
    spec: VpcSpec,
    ports: BTreeMap<String, PortSpec>,
    taps: BTreeSet<String>,
}

impl MemoryNetwork {
    /// A network without any VPC.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `times` calls of an operation fail.
    pub fn fail(&self, operation: Operation, times: u32) {
        self.state().failures.insert(operation, times);
    }

    /// Takes a machine's tap away, as the end of its hypervisor does.
    pub fn lose_tap(&self, machine_uid: &str) {
        for vpc in self.state().vpcs.values_mut() {
            vpc.taps.remove(machine_uid);
        }
    }

    /// Whether a machine has its tap.
    pub fn has_tap(&self, machine_uid: &str) -> bool {
        self.state().vpcs.values().any(|vpc| vpc.taps.contains(machine_uid))
    }

    /// Lets something listen inside a VPC: each connection to `address` arrives here.
    pub fn listen(&self, vpc_uid: &str, address: SocketAddr) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().listeners.insert((vpc_uid.to_owned(), address), sender);
        receiver
    }

    /// Lets port 22 of every machine for which `greets` returns true answer as an ssh server does.
    pub fn answer_ssh(&self, greets: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.state().greets = Some(Arc::new(greets));
    }

    /// The specifications that the VPC and its ports have now.
    pub fn vpc(&self, uid: &str) -> Option<(VpcSpec, Vec<PortSpec>)> {
        self.state().vpcs.get(uid).map(|vpc| (vpc.spec.clone(), vpc.ports.values().cloned().collect()))
    }

    /// Calls that no correct agent makes, such as two machines with one address. A test ends with none.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Fails if a test planted a failure of this operation.
    fn attempt(&mut self, operation: Operation) -> io::Result<()> {
        match self.failures.get_mut(&operation).filter(|left| **left > 0) {
            Some(left) => {
                *left -= 1;
                Err(io::Error::other("a planted failure"))
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn ensure_port(&self, vpc: &VpcSpec, port: &PortSpec) -> Result<TapState, NetworkError> {
        let mut state = self.state();
        state.attempt(Operation::EnsurePort).map_err(file("set up the VPC", Path::new(&vpc.uid)))?;
        let ports = state.vpcs.get(&vpc.uid).map(|vpc| &vpc.ports).into_iter().flatten();
        let owner = ports.map(|(_, other)| other).find(|other| {
            other.machine_uid != port.machine_uid && (other.address == port.address || other.mac == port.mac)
        });
        if let Some(owner) = owner {
            let taken = NetworkError::AddressTaken {
                vpc: vpc.uid.clone(),
                address: port.address,
                owner: owner.machine_uid.clone(),
                machine: port.machine_uid.clone(),
            };
            state.violations.push(taken.to_string());
            return Err(taken);
        }
        let wanted = VpcSpec { subnet: vpc.subnet.trunc(), ..vpc.clone() };
        let vpc = state.vpcs.entry(vpc.uid.clone()).or_insert_with(|| Vpc {
            spec: wanted.clone(),
            ports: BTreeMap::new(),
            taps: BTreeSet::new(),
        });
        vpc.spec = wanted;
        vpc.ports.insert(port.machine_uid.clone(), port.clone());
        Ok(if vpc.taps.contains(&port.machine_uid) { TapState::Present } else { TapState::Absent })
    }

    async fn open_tap(&self, vpc_uid: &str, machine_uid: &str) -> Result<OwnedFd, NetworkError> {
        let mut state = self.state();
        let failed = |source| NetworkError::Tap { link: machine_uid.to_owned(), source };
        state.attempt(Operation::OpenTap).map_err(failed)?;
        let vpc = state.vpcs.get_mut(vpc_uid).filter(|vpc| vpc.ports.contains_key(machine_uid));
        let Some(vpc) = vpc else {
            let unknown = NetworkError::UnknownPort { vpc: vpc_uid.into(), machine: machine_uid.into() };
            state.violations.push(unknown.to_string());
            return Err(unknown);
        };
        let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
        vpc.taps.insert(machine_uid.to_owned());
        Ok(null.into())
    }

    async fn remove_port(&self, vpc_uid: &str, machine_uid: &str) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.attempt(Operation::RemovePort).map_err(file("remove a port of VPC", Path::new(vpc_uid)))?;
        if let Some(vpc) = state.vpcs.get_mut(vpc_uid) {
            vpc.ports.remove(machine_uid);
            vpc.taps.remove(machine_uid);
            if vpc.ports.is_empty() {
                state.vpcs.remove(vpc_uid);
            }
        }
        Ok(())
    }

    async fn ports(&self) -> BTreeMap<String, Vec<String>> {
        let state = self.state();
        state.vpcs.iter().map(|(uid, vpc)| (uid.clone(), vpc.ports.keys().cloned().collect())).collect()
    }

    async fn connect(&self, vpc_uid: &str, address: SocketAddr) -> io::Result<BoxDuplex> {
        let mut state = self.state();
        state.attempt(Operation::Connect)?;
        let Some(vpc) = state.vpcs.get(vpc_uid) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("VPC {vpc_uid} is not on this host")));
        };
        if let Some(greets) = state.greets.clone().filter(|_| address.port() == SSH)
            && let Some(port) = vpc.ports.values().find(|port| address.ip() == port.address)
        {
            let machine = port.machine_uid.clone();
            // The guests may take a lock of their own.
            drop(state);
            if greets(&machine) {
                let (ours, mut theirs) = tokio::io::duplex(GREETING.len());
                // It fits into the buffer, so that it is written at once.
                let _ = theirs.write_all(GREETING).now_or_never();
                return Ok(Box::new(ours));
            }
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = state.listeners.get(&(vpc_uid.to_owned(), address)).ok_or_else(refused)?;
        let (ours, theirs) = tokio::io::duplex(CONNECTION_BUFFER);
        listener.send(theirs).map_err(|_| refused())?;
        Ok(Box::new(ours))
    }

    async fn remove_all(&self) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.attempt(Operation::RemoveAll).map_err(file("remove", Path::new("all VPCs")))?;
        state.vpcs.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn vpc() -> VpcSpec {
        let subnet = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 7), 24);
        VpcSpec { uid: "v".into(), subnet, gateway: Ipv4Addr::new(10, 0, 0, 1) }
    }

    fn port(machine: &str, last: u8) -> PortSpec {
        PortSpec {
            machine_uid: machine.into(),
            mac: super::super::mac::MacAddress([2, 0, 0, 0, 0, last]),
            address: Ipv4Addr::new(10, 0, 0, last),
            hostname: machine.into(),
        }
    }

    #[tokio::test]
    async fn ports_are_kept_and_taps_come_and_go() {
        let network = MemoryNetwork::new();
        assert_eq!(network.ensure_port(&vpc(), &port("a", 3)).await.unwrap(), TapState::Absent);
        let _tap = network.open_tap("v", "a").await.unwrap();
        assert_eq!(network.ensure_port(&vpc(), &port("a", 3)).await.unwrap(), TapState::Present);
        network.lose_tap("a");
        assert_eq!(network.ensure_port(&vpc(), &port("a", 3)).await.unwrap(), TapState::Absent);
        assert_eq!(network.ports().await, BTreeMap::from([("v".to_owned(), vec!["a".to_owned()])]));
        assert_eq!(network.vpc("v").unwrap().0.subnet.to_string(), "10.0.0.0/24");
        network.remove_port("v", "a").await.unwrap();
        network.remove_port("v", "a").await.unwrap();
        assert!(network.ports().await.is_empty() && network.violations().is_empty());
    }

    #[tokio::test]
    async fn wrong_calls_are_refused_and_counted_and_planted_failures_end() {
        let network = MemoryNetwork::new();
        let _ = network.ensure_port(&vpc(), &port("a", 3)).await.unwrap();
        let taken = network.ensure_port(&vpc(), &port("b", 3)).await.unwrap_err();
        assert!(matches!(taken, NetworkError::AddressTaken { .. }), "{taken}");
        assert!(matches!(network.open_tap("v", "b").await, Err(NetworkError::UnknownPort { .. })));
        assert_eq!(network.violations().len(), 2);
        network.fail(Operation::EnsurePort, 1);
        assert!(network.ensure_port(&vpc(), &port("b", 4)).await.is_err());
        let _ = network.ensure_port(&vpc(), &port("b", 4)).await.unwrap();
    }

    #[tokio::test]
    async fn connections_reach_what_listens() {
        let network = MemoryNetwork::new();
        let address = SocketAddr::from(([10, 0, 0, 3], 22));
        assert_eq!(network.connect("v", address).await.err().unwrap().kind(), io::ErrorKind::NotFound);
        let _ = network.ensure_port(&vpc(), &port("a", 3)).await.unwrap();
        assert_eq!(network.connect("v", address).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        let mut listener = network.listen("v", address);
        let mut client = network.connect("v", address).await.unwrap();
        let mut server = listener.recv().await.unwrap();
        server.write_all(b"SSH-2.0").await.unwrap();
        drop(server);
        let mut banner = String::new();
        client.read_to_string(&mut banner).await.unwrap();
        assert_eq!(banner, "SSH-2.0");
    }
}
