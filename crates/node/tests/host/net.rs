//! Stories about VPCs. A guest is played by a namespace of its own, whose card is joined to the machine's tap frame by frame: so
//! its ARP, TCP and routing are the kernel's, as in a real one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use evroc_node::dial::Dialer;
use evroc_node::net::command::ip_batch;
use evroc_node::net::mac::MacAddress;
use evroc_node::net::netns::Netns;
use evroc_node::net::tap;
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig, NetworkError, PortSpec, VpcSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An address of the namespace that plays the internet.
const INTERNET: &str = "203.0.113.1";

struct Host {
    root: tempfile::TempDir,
    instance: String,
    network: HostNetwork,
    internet: Option<Netns>,
}

impl Host {
    async fn new(with_internet: bool) -> Self {
        let root = tempfile::Builder::new().prefix("evroc-net-").tempdir().unwrap();
        let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let internet = with_internet.then(|| {
            let internet = Netns::ensure(&root.path().join("internet")).unwrap();
            ip_batch(&internet, &format!("address add {INTERNET}/32 dev lo\n")).unwrap();
            internet
        });
        let network = resume(root.path(), &instance).await.unwrap();
        Self { root, instance, network, internet }
    }

    async fn guest(&self, vpc: &VpcSpec, number: u8) -> Guest {
        let port = port(number);
        // The tap of a guest that has just ended goes with its process, perhaps while it is looked at.
        loop {
            match self.network.ensure_port(vpc, &port).await {
                Err(NetworkError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    tokio::task::yield_now().await;
                }
                other => break other.unwrap(),
            }
        }
        let fd = self.network.open_tap(&vpc.uid, &port.machine_uid).await.unwrap();
        Guest::start(&self.root.path().join(format!("guest-{}-{number}", vpc.uid)), port, fd)
    }

    /// Namespaces and links of this instance that are still there.
    fn leftovers(&self) -> Vec<String> {
        let prefix = evroc_node::net::names::Names::new(&self.instance);
        let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let mut found: Vec<_> = namespaces.map(|entry| entry.file_name().into_string().unwrap()).collect();
        found.retain(|name| name.starts_with(&self.instance));
        let links = std::fs::read_to_string("/proc/net/dev").unwrap();
        found.extend(
            links.lines().map(str::trim).filter(|line| line.starts_with(prefix.link_prefix())).map(String::from),
        );
        found
    }

    async fn finish(self) {
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
        let _ = Netns::remove(&self.root.path().join("internet"));
    }
}

async fn resume(root: &Path, instance: &str) -> Result<HostNetwork, NetworkError> {
    let internet = root.join("internet");
    let config = NetworkConfig {
        uplink: if internet.exists() { Uplink::Netns(internet) } else { Uplink::None },
        dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
        mtu: 1400,
        ..NetworkConfig::new(instance, &root.join("run"), &root.join("node"))
    };
    HostNetwork::resume(config, Dialer::start().unwrap()).await
}

fn vpc(uid: &str) -> VpcSpec {
    VpcSpec { uid: uid.into(), subnet: "10.0.0.0/24".parse().unwrap(), gateway: "10.0.0.1".parse().unwrap() }
}

fn port(number: u8) -> PortSpec {
    PortSpec {
        machine_uid: format!("machine-{number}"),
        mac: MacAddress([2, 0xe7, 0x0c, 1, 0, number]),
        address: Ipv4Addr::new(10, 0, 0, number),
        hostname: format!("guest-{number}"),
    }
}

/// A namespace that plays a guest.
struct Guest {
    netns: Arc<Netns>,
    port: PortSpec,
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

    /// Asks for an address, and takes it.
    fn boot(&self) -> Message {
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

    fn exchange(&self, kind: MessageType, options: &[DhcpOption]) -> Option<Message> {
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

    fn ip(&self, script: &str) {
        ip_batch(&self.netns, script).unwrap();
    }

    fn pings(&self, arguments: &[&str]) -> bool {
        ping(&self.netns, arguments)
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

fn ping(netns: &Netns, arguments: &[&str]) -> bool {
    let run = || Command::new("ping").args(["-n", "-c", "1", "-W", "2"]).args(arguments).output().unwrap();
    netns.run(run).unwrap().status.success()
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

/// Accepts one connection inside the namespace and answers with what it reads.
fn echo_once(netns: &Netns, address: &str) -> (SocketAddr, tokio::task::JoinHandle<SocketAddr>) {
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

async fn talks(dialer: &Dialer, from: &Arc<Netns>, to: SocketAddr) -> io::Result<()> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_get_their_addresses_and_reach_each_other_and_the_world() {
    let host = Host::new(true).await;
    let (one, two) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("a"), 4).await);
    let ack = one.boot();
    two.boot();
    let option = |code| ack.opts().get(code).cloned();
    assert_eq!(option(OptionCode::SubnetMask), Some(DhcpOption::SubnetMask([255, 255, 255, 0].into())));
    assert_eq!(option(OptionCode::InterfaceMtu), Some(DhcpOption::InterfaceMtu(1400)));
    assert_eq!(option(OptionCode::Hostname), Some(DhcpOption::Hostname("guest-3".into())));
    let dns = DhcpOption::DomainNameServer(vec![[192, 0, 2, 53].into()]);
    assert_eq!(option(OptionCode::DomainNameServer), Some(dns));

    assert!(one.pings(&["10.0.0.1"]), "the gateway");
    assert!(one.pings(&["10.0.0.4"]), "a neighbour");
    assert!(one.pings(&[INTERNET]), "the world");
    assert!(!one.pings(&["10.0.0.99"]), "nobody");
    let dialer = Dialer::start().unwrap();
    let (address, echo) = echo_once(&two.netns, "10.0.0.4:0");
    talks(&dialer, &one.netns, address).await.unwrap();
    assert_eq!(echo.await.unwrap().ip().to_string(), "10.0.0.3", "no translation between neighbours");
    let internet = Arc::new(Netns::open(host.internet.as_ref().unwrap().path()).unwrap());
    let (address, echo) = echo_once(&internet, &format!("{INTERNET}:0"));
    talks(&dialer, &one.netns, address).await.unwrap();
    let peer = echo.await.unwrap().ip().to_string();
    assert!(
        peer.starts_with("198.18.") || peer.starts_with("198.19."),
        "the world sees the transit address, not {peer}"
    );

    // The agent reaches a guest through its VPC, for ssh.
    let (address, echo) = echo_once(&one.netns, "10.0.0.3:0");
    let mut stream = host.network.connect("a", address).await.unwrap();
    stream.write_all(b"hi").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), echo.await.unwrap().ip().to_string().as_str()), ("hi", "10.0.0.1"));

    // The world does not reach guests, even if it knows the way.
    let transit = "10.0.0.0/24 via 198.18.0.0";
    let _ = ip_batch(&internet, &format!("route add {transit}\n"));
    assert!(!ping(&internet, &["10.0.0.3"]));
    drop((one, two));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_cannot_be_somebody_else() {
    let host = Host::new(true).await;
    let (one, two) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("a"), 4).await);
    one.boot();
    two.boot();
    // Another address than its own, towards a neighbour and the world.
    one.ip("address add 10.0.0.77/32 dev eth0\n");
    assert!(!one.pings(&["-I", "10.0.0.77", "10.0.0.4"]) && !one.pings(&["-I", "10.0.0.77", INTERNET]));
    one.ip("address del 10.0.0.77/32 dev eth0\n");
    assert!(one.pings(&["10.0.0.4"]));
    // The neighbour's address, announced by ARP (asking for the gateway in its name): what is for the neighbour still reaches it.
    one.ip("address add 10.0.0.4/32 dev eth0\nneigh flush dev eth0\n");
    assert!(!one.pings(&["-I", "10.0.0.4", "10.0.0.1"]));
    let (address, echo) = echo_once(&two.netns, "10.0.0.4:0");
    drop(host.network.connect("a", address).await.unwrap());
    echo.await.unwrap();
    one.ip("address del 10.0.0.4/32 dev eth0\n");
    // Another link address: nothing passes, DHCP neither.
    one.ip("link set dev eth0 address 02:00:00:00:00:99\n");
    assert!(!one.pings(&["10.0.0.1"]));
    assert_eq!(one.exchange(MessageType::Discover, &[]), None);
    one.ip(&format!("link set dev eth0 address {}\n", one.port.mac));
    assert!(one.exchange(MessageType::Discover, &[]).is_some());
    drop((one, two));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vpcs_with_equal_addresses_do_not_meet() {
    let host = Host::new(true).await;
    let (ours, theirs) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("b"), 4).await);
    // The same machine number in both: the same address and name.
    let twin = host.guest(&vpc("b"), 3).await;
    for guest in [&ours, &theirs, &twin] {
        guest.boot();
        assert!(guest.pings(&[INTERNET]));
    }
    assert!(!ours.pings(&["10.0.0.4"]), "a machine of the other VPC");
    assert!(twin.pings(&["10.0.0.4"]));
    let (address, echo) = echo_once(&twin.netns, "10.0.0.3:0");
    host.network.connect("b", address).await.unwrap();
    echo.await.unwrap();
    assert!(host.network.connect("c", address).await.is_err());
    drop((ours, theirs, twin));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_takes_over_and_repairs() {
    let mut host = Host::new(true).await;
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    // The agent dies; what it made goes on.
    let elsewhere = tempfile::tempdir().unwrap();
    host.network = resume(elsewhere.path(), "elsewhere").await.unwrap();
    assert!(one.pings(&[INTERNET]));
    let (root, instance) = (host.root.path().to_owned(), host.instance.clone());
    // Somebody breaks things meanwhile, and a namespace of ours that nobody knows is left.
    let names = evroc_node::net::names::Names::new(&instance);
    let vpc_netns = Netns::open(&Path::new("/run/netns").join(names.netns("a"))).unwrap();
    ip_batch(&vpc_netns, "route del 10.0.0.3/32\nroute del default\n").unwrap();
    evroc_node::net::command::nft(&vpc_netns, &format!("delete table inet {}\n", names.table())).unwrap();
    Netns::ensure(&Path::new("/run/netns").join(names.netns("forgotten"))).unwrap();

    // Its socket is gone a moment after it.
    let again = loop {
        match resume(&root, &instance).await {
            Err(NetworkError::Dhcp { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    host.network = again.clone();
    assert_eq!(again.ports().await.into_iter().collect::<Vec<_>>(), [("a".into(), vec!["machine-3".into()])]);
    assert!(one.pings(&[INTERNET]));
    assert!(!Path::new("/run/netns").join(names.netns("forgotten")).exists());
    again.ensure_port(&vpc("a"), &port(3)).await.unwrap();
    assert!(one.pings(&["10.0.0.1"]));
    let busy = again.open_tap("a", "machine-3").await;
    assert!(
        matches!(&busy, Err(NetworkError::Tap { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy),
        "{busy:?}"
    );

    // The machine is started anew: its tap went with its hypervisor.
    drop(one);
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    assert!(one.pings(&[INTERNET]));
    drop(one);
    host.network.remove_port("a", "machine-3").await.unwrap();
    host.network.remove_port("a", "machine-3").await.unwrap();
    assert!(!Path::new("/run/netns").join(names.netns("a")).exists(), "the VPC goes with its last port");
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_way_out_names_are_not_waited_for() {
    let host = Host::new(false).await;
    let (one, two) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("a"), 4).await);
    let ack = one.boot();
    two.boot();
    assert_eq!(ack.opts().get(OptionCode::DomainNameServer), None);
    assert!(one.pings(&["10.0.0.4"]));
    let started = std::time::Instant::now();
    assert!(!one.pings(&[INTERNET]));
    assert!(started.elapsed() < Duration::from_secs(1), "refused, not dropped");
    // One machine goes, the other stays.
    host.network.remove_port("a", "machine-4").await.unwrap();
    assert!(!one.pings(&["10.0.0.4"]) && one.pings(&["10.0.0.1"]));
    drop((one, two));
    host.finish().await;
}

#[test]
fn the_hosts_own_rules_are_accepted_and_removed() {
    use evroc_node::net::{command::nft, rules};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let host = Netns::ensure(&path).unwrap();
    let table = rules::host_table("evroc", "i1234p*", "198.18.0.0/15".parse().unwrap());
    nft(&host, &table).unwrap();
    nft(&host, &table).unwrap();
    nft(&host, &rules::remove_table("evroc")).unwrap();
    nft(&host, &rules::remove_table("evroc")).unwrap();
    let refused = nft(&host, "add rule inet nothing here accept\n").unwrap_err().to_string();
    assert!(refused.starts_with("nft in ") && refused.contains("No such file"), "{refused}");
    Netns::remove(&path).unwrap();
}

/// The way out through the host changes the host: so the host is a namespace here, and the test runs itself again inside it.
#[test]
fn through_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let (internet_path, host_path) = (folder.path().join("internet"), folder.path().join("host"));
    let (internet, host) = (Netns::ensure(&internet_path).unwrap(), Netns::ensure(&host_path).unwrap());
    ip_batch(
        &internet,
        &format!(
            "address add {INTERNET}/32 dev lo\nlink add up0 type veth peer name down0 netns {}\n\
             address add 192.0.2.1/24 dev up0\nlink set dev up0 up\n",
            host_path.display()
        ),
    )
    .unwrap();
    ip_batch(&host, "address add 192.0.2.2/24 dev down0\nlink set dev down0 up\nroute add default via 192.0.2.1\n")
        .unwrap();
    let output = host.run(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["net::inside_the_host", "--exact", "--ignored", "--nocapture"])
            .env("EVROC_TEST_HOST", folder.path())
            .output()
            .unwrap()
    });
    Netns::remove(&host_path).unwrap();
    Netns::remove(&internet_path).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "called by through_the_host"]
async fn inside_the_host() {
    let Some(folder) = std::env::var_os("EVROC_TEST_HOST") else { return };
    let root = tempfile::tempdir_in(folder).unwrap();
    let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let config = NetworkConfig {
        uplink: Uplink::Host,
        mtu: 1400,
        ..NetworkConfig::new(&instance, &root.path().join("run"), &root.path().join("node"))
    };
    let network = HostNetwork::resume(config, Dialer::start().unwrap()).await.unwrap();
    let host = Host { root, instance, network, internet: None };
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned();
    assert_eq!(forwarding(), "1");
    let (one, other) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("b"), 4).await);
    one.boot();
    other.boot();
    let internet = Netns::open(&host.root.path().parent().unwrap().join("internet")).unwrap();
    let (address, echo) = echo_once(&internet, &format!("{INTERNET}:0"));
    let dialer = Dialer::start().unwrap();
    talks(&dialer, &one.netns, address).await.unwrap();
    assert_eq!(echo.await.unwrap().ip().to_string(), "192.0.2.2", "the world sees the host");
    assert!(other.pings(&[INTERNET]));
    // The host's own services, and other VPCs by their transit address, are not for guests.
    assert!(!one.pings(&["192.0.2.2"]));
    for address in ["198.18.0.0/15", "10.0.0.0/24"] {
        let _ = ip_batch(&internet, &format!("route add {address} via 192.0.2.2\n"));
    }
    assert!(!ping(&internet, &["10.0.0.3"]) && ping(&internet, &["192.0.2.2"]));
    drop((one, other));
    let listing = |tool: &str, arguments: &[&str]| Command::new(tool).args(arguments).output().unwrap().stdout;
    host.finish().await;
    assert_eq!(forwarding(), "0", "as it was");
    assert!(listing("nft", &["list", "ruleset"]).is_empty());
}
