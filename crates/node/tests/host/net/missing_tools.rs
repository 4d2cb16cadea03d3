//! A host without `nft`: what can run runs, the host says what is missing, and goes on by itself when it is installed.

use std::process::Command;
use std::time::{Duration, Instant};

use evroc_node::agent::host::{HostConditions, Topic};
use evroc_node::dial::Dialer;
use evroc_node::net::network::Network;
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig};

/// Mounts and a network of its own: so the test runs itself again with both.
#[test]
fn a_host_without_nft_starts_and_goes_on_when_it_is_installed() {
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["net::missing_tools::inside_without_nft", "--exact", "--ignored", "--nocapture"])
        .env("EVROC_TEST_WITHOUT_NFT", "own")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "called by a_host_without_nft_starts_and_goes_on_when_it_is_installed"]
async fn inside_without_nft() {
    if std::env::var_os("EVROC_TEST_WITHOUT_NFT").is_none() {
        return;
    }
    let nft = std::fs::canonicalize("/usr/sbin/nft").unwrap();
    // Not executable, as good as absent.
    rustix::mount::mount_bind("/dev/null", &nft).unwrap();
    let root = tempfile::tempdir().unwrap();
    let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let conditions = HostConditions::default();
    let config = NetworkConfig {
        uplink: Uplink::Host,
        conditions: conditions.clone(),
        ..NetworkConfig::new(&instance, &root.path().join("run"), &root.path().join("node"))
    };
    let network = HostNetwork::resume(config, Dialer::start().unwrap()).await.expect("the node starts");
    let verdict = conditions.verdicts()[&Topic::NetworksConverged].clone();
    assert_eq!((verdict.status, verdict.reason.as_str()), ("False", "HostNotPrepared"));
    assert!(verdict.message.contains("nft") && verdict.message.contains("package nftables"), "{}", verdict.message);
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned();
    assert_eq!(forwarding(), "0", "nothing is forwarded before the rules are in place");

    rustix::mount::unmount(&nft, rustix::mount::UnmountFlags::empty()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while conditions.verdicts()[&Topic::NetworksConverged].status != "True" {
        assert!(Instant::now() < deadline, "{:?}", conditions.verdicts());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(forwarding(), "1");
    network.remove_all().await.unwrap();
    assert_eq!(forwarding(), "0");
}
