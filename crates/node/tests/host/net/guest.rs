//! A host with VPCs and guests. A guest is played by a namespace of its own, whose card is joined to the machine's tap frame by frame:
//! so its ARP, TCP and routing are the kernel's, as in a real one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode};
use dhcproto::{Decodable, Encodable};
use evroc_node::agent::host::{HostConditions, Topic};
use evroc_node::dial::Dialer;
use evroc_node::net::command::ip_batch;
use evroc_node::net::folder;
use evroc_node::net::mac::MacAddress;
use evroc_node::net::netns::Netns;
use evroc_node::net::network::{Network, PortSpec, VpcSpec};
use evroc_node::net::tap;
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig, NetworkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An address of the namespace that plays the internet.
pub const INTERNET: &str = "203.0.113.1";

pub struct Host {
    pub root: tempfile::TempDir,
    pub instance: String,
    pub network: HostNetwork,
    pub internet: Option<Netns>,
    pub conditions: HostConditions,
}

impl Host {
    pub async fn new(with_internet: bool) -> Self {
        let root = tempfile::Builder::new().prefix("evroc-net-").tempdir().unwrap();
        let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let internet = with_internet.then(|| {
            let internet = Netns::ensure(&root.path().join("internet")).unwrap();
            ip_batch(&internet, &format!("address add {INTERNET}/32 dev lo\n")).unwrap();
            internet
        });
        let conditions = HostConditions::default();
        let network = resume(root.path(), &instance, &conditions).await.unwrap();
        Self { root, instance, network, internet, conditions }
    }

    pub async fn guest(&self, vpc: &VpcSpec, number: u8) -> Guest {
        let port = port(number);
        let _ = self.network.ensure_port(vpc, &port).await.unwrap();
        let fd = self.network.open_tap(&vpc.uid, &port.machine_uid).await.unwrap();
        Guest::start(&self.root.path().join(format!("guest-{}-{number}", vpc.uid)), port, fd)
    }

    /// The folder of the namespaces of VPCs.
    pub fn namespaces(&self) -> PathBuf {
        self.root.path().join("run/vpc-netns")
    }

    /// The record of a VPC.
    pub fn record(&self, vpc: &str) -> PathBuf {
        self.root.path().join("run/vpcs").join(format!("{vpc}.json"))
    }

    /// Ends the agent as a kill does: its namespaces and taps stay.
    pub async fn kill_agent(&mut self) {
        let elsewhere = tempfile::tempdir().unwrap();
        self.network = resume(elsewhere.path(), "elsewhere", &HostConditions::default()).await.unwrap();
        self.network.remove_all().await.unwrap();
    }

    /// Starts another agent on the state of the last one.
    pub async fn start_agent(&mut self) {
        self.conditions = HostConditions::default();
        self.network = resume(self.root.path(), &self.instance, &self.conditions).await.unwrap();
    }

    /// The status of a condition that the network reports, with its message.
    pub fn condition(&self, topic: Topic) -> (&'static str, String) {
        self.conditions.verdicts().remove(&topic).map(|verdict| (verdict.status, verdict.message)).unwrap()
    }

    /// Namespaces and links of this instance that still exist.
    fn leftovers(&self) -> Vec<String> {
        let prefix = evroc_node::net::names::Names::new(&self.instance);
        let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let mut found: Vec<_> = namespaces.map(|entry| entry.file_name().into_string().unwrap()).collect();
        found.retain(|name| name.starts_with(&self.instance));
        let links = std::fs::read_to_string("/proc/net/dev").unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.root.path().join("run");
        found.extend(mounts.lines().filter(|line| line.contains(&*below.to_string_lossy())).map(String::from));
        found.extend(
            links.lines().map(str::trim).filter(|line| line.starts_with(prefix.link_prefix())).map(String::from),
        );
        found
    }

    pub async fn finish(self) {
        self.network.remove_all().await.unwrap();
        if let Some(internet) = &self.internet {
            let links = internet.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
            assert_eq!(links.lines().count(), 3, "lo and two lines of heading: {links}");
        }
        assert!(self.leftovers().is_empty(), "{:?}", self.leftovers());
        assert!(!self.root.path().join("run/vpcs").exists());
    }
}

/// A test that failed cleans up, too.
impl Drop for Host {
    fn drop(&mut self) {
        let network = self.network.clone();
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = runtime.block_on(network.remove_all());
        });
        let _ = cleaning.join();
        // A test that failed without an agent leaves namespaces.
        for path in folder::list(&self.namespaces()) {
            let _ = Netns::remove(&path);
        }
        let _ = folder::remove(&self.namespaces());
        let _ = Netns::remove(&self.root.path().join("internet"));
    }
}

async fn resume(root: &Path, instance: &str, conditions: &HostConditions) -> Result<HostNetwork, NetworkError> {
    let internet = root.join("internet");
    let config = NetworkConfig {
        uplink: if internet.exists() { Uplink::Netns(internet) } else { Uplink::None },
        dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
        mtu: 1400,
        linger: Duration::ZERO,
        conditions: conditions.clone(),
        ..NetworkConfig::new(instance, &root.join("run"), &root.join("node"))
    };
    HostNetwork::resume(config, Dialer::start().unwrap()).await
}

pub fn vpc(uid: &str) -> VpcSpec {
    VpcSpec { uid: uid.into(), subnet: "10.0.0.0/24".parse().unwrap(), gateway: "10.0.0.1".parse().unwrap() }
}

pub fn port(number: u8) -> PortSpec {
    PortSpec {
        machine_uid: format!("machine-{number}"),
        mac: MacAddress([2, 0xe7, 0x0c, 1, 0, number]),
        address: Ipv4Addr::new(10, 0, 0, number),
        hostname: format!("guest-{number}"),
    }
}

/// A namespace that plays a guest.
pub struct Guest {
    pub netns: Arc<Netns>,
    pub port: PortSpec,
    /// Closing it ends the thread that joins the two taps.
    _stop: OwnedFd,
    joint: Option<std::thread::JoinHandle<()>>,
}

impl Guest {
    fn start(path: &Path, port: PortSpec, machine_tap: OwnedFd) -> Self {
        let netns = Netns::ensure(path).unwrap();
        let card = netns.run(|| tap::create("eth0").unwrap()).unwrap();
        let script = format!("link set dev eth0 address {}\nlink set dev eth0 up\n", port.mac);
        ip_batch(&netns, &script).unwrap();
        let (stop, stopped) = rustix::pipe::pipe().unwrap();
        let joint = std::thread::spawn(move || join(&card, &machine_tap, &stop));
        Self { netns: Arc::new(netns), port, _stop: stopped, joint: Some(joint) }
    }

    /// Requests an address, and takes it.
    pub fn boot(&self) -> Message {
        let offer = self.exchange(MessageType::Discover, &[]).expect("an offer");
        assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
        let options =
            [DhcpOption::RequestedIpAddress(offer.yiaddr()), DhcpOption::ServerIdentifier("10.0.0.1".parse().unwrap())];
        let ack = self.exchange(MessageType::Request, &options).expect("an answer");
        assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
        assert_eq!(ack.yiaddr(), self.port.address);
        self.ip(&format!("address add {}/24 dev eth0\nroute add default via 10.0.0.1\n", ack.yiaddr()));
        ack
    }

    pub fn exchange(&self, kind: MessageType, options: &[DhcpOption]) -> Option<Message> {
        let mut message = Message::default();
        message.set_opcode(Opcode::BootRequest).set_chaddr(&self.port.mac.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        for option in options {
            message.opts_mut().insert(option.clone());
        }
        // A child of another test that is between fork and exec may have a copy of the last socket.
        let socket = loop {
            match self.netns.run(|| UdpSocket::bind("0.0.0.0:68")).unwrap() {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        // Without an address yet, a broadcast needs a route.
        let _ = ip_batch(&self.netns, "route add 255.255.255.255/32 dev eth0\n");
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&message.to_vec().unwrap(), "255.255.255.255:67").unwrap();
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).ok()?;
        Some(Message::from_bytes(&buffer[..length]).unwrap())
    }

    pub fn ip(&self, script: &str) {
        ip_batch(&self.netns, script).unwrap();
    }

    pub fn pings(&self, arguments: &[&str]) -> bool {
        ping(&self.netns, arguments)
    }

    /// Whether a router answers that the address cannot be reached; false also when nothing answers.
    pub fn is_refused(&self, address: &str) -> bool {
        let output = report(&self.netns, &[address]);
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("+1 errors")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let (_, end) = rustix::pipe::pipe().unwrap();
        drop(std::mem::replace(&mut self._stop, end));
        self.joint.take().unwrap().join().unwrap();
        Netns::remove(self.netns.path()).unwrap();
    }
}

pub fn ping(netns: &Netns, arguments: &[&str]) -> bool {
    report(netns, arguments).status.success()
}

fn report(netns: &Netns, arguments: &[&str]) -> Output {
    let run = || Command::new("ping").args(["-n", "-c", "1", "-W", "2"]).args(arguments).output().unwrap();
    netns.run(run).unwrap()
}

/// Carries frames (with their virtio headers) between two taps until the other end of `stop` is closed.
fn join(a: &OwnedFd, b: &OwnedFd, stop: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut frame = vec![0; 65_536];
    loop {
        let mut fds = [a, b, stop].map(|fd| PollFd::new(fd, PollFlags::IN));
        poll(&mut fds, None).unwrap();
        if !fds[2].revents().is_empty() {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            while let Ok(length) = rustix::io::read(from, &mut frame) {
                let _ = rustix::io::write(to, &frame[..length]);
            }
        }
        if fds[..2].iter().any(|fd| fd.revents().contains(PollFlags::ERR)) {
            return;
        }
    }
}

/// Accepts one connection inside the namespace and echoes its input.
pub fn echo_once(netns: &Netns, address: &str) -> (SocketAddr, tokio::task::JoinHandle<SocketAddr>) {
    let listener = netns.run(|| std::net::TcpListener::bind(address).unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, peer) = tokio::net::TcpListener::from_std(listener).unwrap().accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        peer
    });
    (address, task)
}

pub async fn talks(dialer: &Dialer, from: &Arc<Netns>, to: SocketAddr) -> io::Result<()> {
    let connecting = dialer.connect(from, to);
    let mut stream = tokio::time::timeout(Duration::from_secs(2), connecting).await.map_err(io::Error::other)??;
    // More than one segment: an MTU that does not fit would hang here.
    let sent = vec![7_u8; 200_000];
    let (mut read, mut write) = stream.split();
    let (wrote, received) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        async {
            let mut received = Vec::new();
            read.read_to_end(&mut received).await.map(|_| received)
        }
    );
    wrote?;
    assert_eq!(received?.len(), sent.len());
    Ok(())
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
