//! The abilities of guests in VPCs, and their limits.

use std::sync::Arc;

use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use evroc_node::dial::Dialer;
use evroc_node::net::command::ip_batch;
use evroc_node::net::netns::Netns;
use evroc_node::net::network::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::guest::{Host, INTERNET, echo_once, ping, talks, vpc};

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
    assert!(!one.pings(&["10.0.0.99"]), "an address without a guest");
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
async fn a_guest_cannot_use_the_address_of_another() {
    let host = Host::new(true).await;
    let (one, two) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("a"), 4).await);
    one.boot();
    two.boot();
    // Another address than its own, towards a neighbour and the world.
    one.ip("address add 10.0.0.77/32 dev eth0\n");
    assert!(!one.pings(&["-I", "10.0.0.77", "10.0.0.4"]) && !one.pings(&["-I", "10.0.0.77", INTERNET]));
    one.ip("address del 10.0.0.77/32 dev eth0\n");
    assert!(one.pings(&["10.0.0.4"]));
    // The neighbour's address, announced by ARP (in a request for the gateway): packets for the neighbour still reach it.
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
async fn without_a_way_out_names_are_not_waited_for() {
    let host = Host::new(false).await;
    let (one, two) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("a"), 4).await);
    let ack = one.boot();
    two.boot();
    assert_eq!(ack.opts().get(OptionCode::DomainNameServer), None);
    assert!(one.pings(&["10.0.0.4"]));
    assert!(one.is_refused(INTERNET), "refused, not dropped");
    // One machine goes, the other stays.
    host.network.remove_port("a", "machine-4").await.unwrap();
    assert!(!one.pings(&["10.0.0.4"]) && one.pings(&["10.0.0.1"]));
    drop((one, two));
    host.finish().await;
}
