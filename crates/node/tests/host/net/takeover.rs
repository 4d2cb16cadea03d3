//! An agent that starts after another one: it takes over, repairs, and leaves alone the records it cannot read.

use std::path::Path;
use std::process::Command;

use dhcproto::v4::MessageType;
use evroc_node::agent::host::Topic;
use evroc_node::net::command::{ip_batch, nft};
use evroc_node::net::names::Names;
use evroc_node::net::netns::Netns;
use evroc_node::net::network::{Network, TapState};
use evroc_node::net::vpc::NetworkError;

use super::guest::{Host, INTERNET, port, until, vpc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_takes_over_and_repairs() {
    let mut host = Host::new(true).await;
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    // The agent ends; its namespaces stay.
    host.kill_agent().await;
    assert!(one.pings(&[INTERNET]));
    // Things break meanwhile, and a namespace that nothing lives in is left.
    let namespaces = host.namespaces();
    let vpc_netns = Netns::open(&namespaces.join("a")).unwrap();
    ip_batch(&vpc_netns, "route del 10.0.0.3/32\nroute del default\n").unwrap();
    nft(&vpc_netns, &format!("delete table inet {}\n", host.instance)).unwrap();
    Netns::ensure(&namespaces.join("forgotten")).unwrap();

    host.start_agent().await;
    let again = host.network.clone();
    assert_eq!(again.ports().await.into_iter().collect::<Vec<_>>(), [("a".into(), vec!["machine-3".into()])]);
    assert!(one.pings(&[INTERNET]));
    assert!(!namespaces.join("forgotten").exists());
    assert_eq!(again.ensure_port(&vpc("a"), &port(3)).await.unwrap(), TapState::Present);
    assert!(one.pings(&["10.0.0.1"]));
    let busy = again.open_tap("a", "machine-3").await;
    assert!(busy.as_ref().is_err_and(NetworkError::is_busy), "{busy:?}");

    // The machine is started again: its tap went with its hypervisor.
    drop(one);
    // A child of another test that is between fork and exec may have a copy of the tap for a moment.
    while again.ensure_port(&vpc("a"), &port(3)).await.unwrap() == TapState::Present {
        tokio::task::yield_now().await;
    }
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    assert!(one.pings(&[INTERNET]));
    drop(one);
    drop(again);
    host.network.remove_port("a", "machine-3").await.unwrap();
    host.network.remove_port("a", "machine-3").await.unwrap();
    until("the VPC goes some time after its last port", || !namespaces.join("a").exists()).await;
    assert!(!host.record("a").exists() && host.network.ports().await.is_empty());
    host.finish().await;
}

/// Two uids whose SHA-256 begins with the same eight digits.
const ALIKE: [&str; 2] = ["vpc-29986", "vpc-152360"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vpcs_whose_hashes_begin_alike_stay_apart() {
    let names = Names::new("any");
    assert_eq!(names.outer_uplink(ALIKE[0]), names.outer_uplink(ALIKE[1]));
    let host = Host::new(false).await;
    let (ours, theirs) = (host.guest(&vpc(ALIKE[0]), 3).await, host.guest(&vpc(ALIKE[1]), 4).await);
    ours.boot();
    theirs.boot();
    assert!(ours.pings(&["10.0.0.1"]) && !ours.pings(&["10.0.0.4"]), "a machine of the other VPC");
    drop((ours, theirs));
    host.finish().await;

    // With a way out both would have one link in the uplink's namespace: the second one is refused, and the first one keeps its own.
    let host = Host::new(true).await;
    let ours = host.guest(&vpc(ALIKE[0]), 3).await;
    ours.boot();
    let refused = host.network.ensure_port(&vpc(ALIKE[1]), &port(4)).await.unwrap_err();
    assert!(matches!(&refused, NetworkError::NameTaken { owner, .. } if owner == ALIKE[0]), "{refused}");
    let (status, message) = host.condition(Topic::NetworksConverged);
    assert!(status == "False" && message.contains(ALIKE[1]) && !message.contains("VPC vpc-29986:"), "{message}");
    assert!(ours.pings(&[INTERNET]));
    drop(ours);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_whose_hashes_begin_alike_do_not_share_a_tap() {
    let host = Host::new(false).await;
    let mut ports = [port(3), port(4)];
    ports[0].machine_uid = "machine-26608".into();
    ports[1].machine_uid = "machine-63457".into();
    let _ = host.network.ensure_port(&vpc("a"), &ports[0]).await.unwrap();
    let refused = host.network.ensure_port(&vpc("a"), &ports[1]).await.unwrap_err();
    assert!(matches!(&refused, NetworkError::NameTaken { owner, .. } if *owner == ports[0].machine_uid), "{refused}");
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_cuts_no_guest_off_and_is_written_again() {
    let mut host = Host::new(true).await;
    let (one, two) = (host.guest(&vpc("a"), 3).await, host.guest(&vpc("a"), 4).await);
    one.boot();
    two.boot();
    host.kill_agent().await;
    std::fs::write(host.record("a"), r#"{"version":2,"vpc":{"#).unwrap();
    host.start_agent().await;
    assert!(one.pings(&[INTERNET]) && two.pings(&["10.0.0.3"]), "guests go on");
    let (status, message) = host.condition(Topic::RecordsReadable);
    assert!(status == "False" && message.contains("VPC a"), "{message}");
    // Their machines keep their network; a new one has to wait, because the rules for all of them are not known.
    assert_eq!(host.network.ensure_port(&vpc("a"), &port(3)).await.unwrap(), TapState::Present);
    let waits = host.network.ensure_port(&vpc("a"), &port(5)).await.unwrap_err();
    assert!(matches!(waits, NetworkError::Unreadable { .. }), "{waits}");
    assert!(one.pings(&[INTERNET]) && two.pings(&["10.0.0.3"]));
    // Once all of them are known, everything is as before.
    assert_eq!(host.network.ensure_port(&vpc("a"), &port(4)).await.unwrap(), TapState::Present);
    assert_eq!(host.condition(Topic::RecordsReadable).0, "True");
    assert!(one.pings(&[INTERNET]) && two.pings(&["10.0.0.3"]));
    assert!(one.exchange(MessageType::Discover, &[]).is_some());
    let three = host.guest(&vpc("a"), 5).await;
    three.boot();
    assert!(three.pings(&["10.0.0.3"]) && three.pings(&[INTERNET]));
    drop((one, two, three));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_newer_version_is_left_alone() {
    let mut host = Host::new(true).await;
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    host.kill_agent().await;
    let newer = r#"{"version":99,"shape":"unknown"}"#;
    std::fs::write(host.record("a"), newer).unwrap();
    host.start_agent().await;
    let (status, message) = host.condition(Topic::RecordsReadable);
    assert!(status == "False" && message.contains("99"), "{message}");
    assert_eq!(host.network.ensure_port(&vpc("a"), &port(3)).await.unwrap(), TapState::Present);
    assert!(host.network.ensure_port(&vpc("a"), &port(4)).await.is_err());
    assert!(one.pings(&[INTERNET]));
    assert_eq!(std::fs::read_to_string(host.record("a")).unwrap(), newer);
    // Another VPC is none of its business.
    let other = host.guest(&vpc("b"), 3).await;
    other.boot();
    assert!(other.pings(&[INTERNET]));
    drop((one, other));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vpc_that_cannot_be_set_up_stops_no_other_and_is_tried_again() {
    let mut host = Host::new(false).await;
    let (bad, good) = (host.guest(&vpc("bad"), 3).await, host.guest(&vpc("good"), 3).await);
    bad.boot();
    good.boot();
    host.kill_agent().await;
    // Another server has the port of DHCP.
    let netns = Netns::open(&host.namespaces().join("bad")).unwrap();
    let squatter = loop {
        match netns.run(|| std::net::UdpSocket::bind("0.0.0.0:67")).unwrap() {
            Ok(socket) => break socket,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    host.start_agent().await;
    assert!(good.exchange(MessageType::Discover, &[]).is_some(), "the other VPC is served");
    let (status, message) = host.condition(Topic::NetworksConverged);
    assert!(status == "False" && message.contains("VPC bad") && !message.contains("VPC good"), "{message}");
    assert!(bad.pings(&["10.0.0.1"]));
    drop(squatter);
    until("the VPC was tried again", || host.condition(Topic::NetworksConverged).0 == "True").await;
    assert!(bad.exchange(MessageType::Discover, &[]).is_some());
    drop((bad, good));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_subnet_reaches_a_namespace_that_stands() {
    let host = Host::new(false).await;
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    let mut wide = vpc("a");
    wide.subnet = "10.0.0.7/16".parse().unwrap();
    wide.gateway = "10.0.0.2".parse().unwrap();
    assert_eq!(host.network.ensure_port(&wide, &port(3)).await.unwrap(), TapState::Present);
    let netns = Netns::open(&host.namespaces().join("a")).unwrap();
    let ip = |arguments: &[&str]| {
        let output = netns.run(|| Command::new("ip").args(arguments).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let routes = ip(&["route", "show", "type", "unreachable"]);
    assert!(routes.contains("10.0.0.0/16") && !routes.contains("10.0.0.0/24"), "{routes}");
    let addresses = ip(&["-o", "address", "show"]);
    assert!(addresses.contains("10.0.0.2/32") && !addresses.contains("10.0.0.1/32"), "{addresses}");
    assert!(one.pings(&["10.0.0.2"]));
    drop(one);
    host.finish().await;
}

/// Tests that change mounts need mounts of their own: so the test runs itself again with a copy of them.
#[test]
fn a_namespace_that_others_hide() {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["net::takeover::inside_own_mounts", "--exact", "--ignored", "--nocapture"])
        .env("EVROC_TEST_MOUNTS", "own")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "called by a_namespace_that_others_hide"]
async fn inside_own_mounts() {
    if std::env::var_os("EVROC_TEST_MOUNTS").is_none() {
        return;
    }
    // A /run of our own, in which `ip netns` was not used yet.
    rustix::mount::mount("tmpfs", "/run", "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    std::fs::create_dir("/run/netns").unwrap();
    let mut host = Host::new(true).await;
    let one = host.guest(&vpc("a"), 3).await;
    one.boot();
    let other = host.guest(&vpc("b"), 3).await;
    other.boot();
    host.kill_agent().await;

    // As an earlier version left it: a name from a part of the hash, in the folder of `ip netns`, and a record without a version.
    let names = Names::new(&host.instance);
    let legacy = |uid: &str| Path::new("/run/netns").join(names.legacy_netns(uid));
    for uid in ["a", "b"] {
        let path = host.namespaces().join(uid);
        Netns::open(&path).unwrap().mount_at(&legacy(uid)).unwrap();
        Netns::remove(&path).unwrap();
        let record = std::fs::read_to_string(host.record(uid)).unwrap().replace(r#""version":2,"#, "");
        std::fs::write(host.record(&names.legacy_netns(uid)), record).unwrap();
        std::fs::remove_file(host.record(uid)).unwrap();
    }
    // The first use of `ip netns` mounts the folder over itself. One namespace loses even its copy on top: only its guest has it.
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().unwrap().success());
    ip(&["netns", "add", "somebody"]);
    rustix::mount::unmount(legacy("a"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(Netns::open(&legacy("a")).is_err() && Netns::open(&legacy("b")).is_ok());
    assert!(std::fs::remove_file(legacy("a")).is_err(), "a mount that is hidden keeps the file");

    host.start_agent().await;
    assert_eq!(host.network.ensure_port(&vpc("a"), &port(3)).await.unwrap(), TapState::Present);
    assert_eq!(host.network.ensure_port(&vpc("b"), &port(3)).await.unwrap(), TapState::Present);
    for guest in [&one, &other] {
        assert!(guest.pings(&[INTERNET]));
        assert!(guest.exchange(MessageType::Discover, &[]).is_some());
    }
    for uid in ["a", "b"] {
        assert!(!legacy(uid).exists() && !host.record(&names.legacy_netns(uid)).exists());
        assert!(host.namespaces().join(uid).exists() && host.record(uid).exists());
    }
    // No other user's namespace was touched.
    assert!(Netns::open(Path::new("/run/netns/somebody")).is_ok());

    // The folder of our own loses its mounts, too: the guest still has the namespace.
    host.kill_agent().await;
    rustix::mount::unmount(host.namespaces(), rustix::mount::UnmountFlags::DETACH).unwrap();
    host.start_agent().await;
    assert_eq!(host.network.ensure_port(&vpc("a"), &port(3)).await.unwrap(), TapState::Present);
    assert!(one.pings(&[INTERNET]));
    drop((one, other));
    host.finish().await;
    ip(&["netns", "delete", "somebody"]);
}
