//! The way out through the host itself.

use std::process::Command;

use evroc_node::agent::host::HostConditions;
use evroc_node::dial::Dialer;
use evroc_node::net::command::ip_batch;
use evroc_node::net::netns::Netns;
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig};

use super::guest::{Host, INTERNET, echo_once, ping, talks, vpc};

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
            .args(["net::through_host::inside_the_host", "--exact", "--ignored", "--nocapture"])
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
    let host = Host { root, instance, network, internet: None, conditions: HostConditions::default() };
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
