//! The store of the state: in an etcd, in backups, and on its way from one to the other.

use evroc_tests::etcd::Etcd;

use crate::client::ask_api;
use crate::fixture::{Instance, signal};

#[test]
fn a_cloud_moves_into_an_etcd_and_back_and_is_restored() {
    let etcd = Etcd::start("3.4").unwrap();
    let address = format!("{}/clouds/a", etcd.address());
    let instance = Instance::up();
    let group = "/apis/iam.evroclabs.net/v1alpha1/resourcegroups/demo";
    assert_eq!(ask_api(&instance, group).unwrap(), 200);
    let backup = instance.home.path().join("embedded.backup");
    let backup = backup.to_str().unwrap();

    // Online, and nothing else while the cloud runs.
    assert!(instance.must(&["store", "backup", backup]).contains("at revision"));
    assert!(instance.must_fail(&["store", "backup", backup]).contains("exists"));
    for arguments in [&["store", "migrate", "--store", &address][..], &["store", "restore", backup]] {
        let output = instance.must_fail(arguments);
        assert!(output.contains("stop it first with `evrocd down"), "{output}");
    }
    instance.must(&["down"]);

    // Another store would be another cloud: that is refused, and nothing is started.
    let output = instance.must_fail(&["up", "--detach", "--store", &address]);
    assert!(output.contains("evrocd store migrate"), "{output}");
    let output = instance.must(&["store", "migrate", "--store", &address]);
    assert!(output.contains("and compared them"), "{output}");
    assert!(output.contains("store.migrated-1"), "{output}");
    let output = instance.must_fail(&["store", "migrate", "--store", &address]);
    assert!(output.contains("there already"), "{output}");
    instance.start(&[]);
    assert_eq!(ask_api(&instance, group).unwrap(), 200);
    assert!(!instance.state().join("control/store/store.db").exists());
    let before = instance.all_ready_but(&[]);
    signal(before["control"], "KILL");
    instance.all_ready_but(&[before["control"]]);
    assert_eq!(ask_api(&instance, group).unwrap(), 200);
    // It knows that its former self is dead.
    let log = std::fs::read_to_string(instance.state().join("log/control.log")).unwrap();
    assert!(!log.contains("waiting for the end of this instance's former claim"), "{log}");
    let from_etcd = instance.home.path().join("etcd.backup");
    instance.must(&["store", "backup", from_etcd.to_str().unwrap()]);
    instance.must(&["down"]);

    // A backup of the one is restored into the other.
    let output = instance.must_fail(&["store", "restore", backup]);
    assert!(output.contains("--replace"), "{output}");
    instance.must(&["store", "restore", backup, "--replace"]);
    instance.must(&["store", "migrate", "--store", "embedded"]);
    instance.start(&["--store", "embedded"]);
    assert_eq!(ask_api(&instance, group).unwrap(), 200);
    instance.must(&["down"]);
    std::fs::write(instance.home.path().join("nonsense"), "nonsense").unwrap();
    let output =
        instance.must_fail(&["store", "restore", instance.home.path().join("nonsense").to_str().unwrap(), "--replace"]);
    assert!(output.contains("is not a sound backup"), "{output}");
    instance.must(&["store", "restore", from_etcd.to_str().unwrap(), "--replace"]);
    instance.start(&[]);
    assert_eq!(ask_api(&instance, group).unwrap(), 200);
}

#[test]
fn a_cloud_begins_in_an_etcd() {
    let etcd = Etcd::start("3.5").unwrap();
    let instance = Instance::new();
    let output = instance.must_fail(&["up", "--detach", "--store", "http://127.0.0.1:1"]);
    assert!(output.contains("expected etcd://HOST:PORT"), "{output}");
    instance.start(&["--store", &etcd.address()]);
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
    assert_eq!(instance.record()["etcd"]["address"], format!("{}/evroc", etcd.address()));
    // Remembered, and no store of its own is made.
    instance.must(&["down"]);
    instance.start(&[]);
    assert_eq!(ask_api(&instance, "/apis/iam.evroclabs.net/v1alpha1/resourcegroups/demo").unwrap(), 200);
    assert!(!instance.state().join("control/store/store.db").exists());
    let output = instance.must_fail(&["up", "--store", "embedded"]);
    assert!(output.contains("running with another one"), "{output}");
    // Another cloud is refused, and when it is removed it takes nothing with it.
    let other = Instance::new();
    let output = other.must_fail(&[
        "up",
        "--detach",
        "--no-hosts-block",
        "--api-port=0",
        "--https-port=0",
        "--store",
        &etcd.address(),
    ]);
    let who = format!("is in use by instance {}, process {} on ", instance.name, instance.ready_roles()["control"]);
    assert!(output.contains(&who) && output.contains("choose another prefix"), "{output}");
    let output = other.must(&["down", "--purge"]);
    assert!(output.contains("is left") && output.contains(&who), "{output}");
    assert_eq!(ask_api(&instance, "/apis/iam.evroclabs.net/v1alpha1/resourcegroups/demo").unwrap(), 200);
    // A purge leaves nothing, there neither.
    instance.must(&["down", "--purge"]);
    let address = etcd.address().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(evroc_store::etcd::Options::new(address).create(evroc_store::Revision(7)))
        .expect("it is as if there had never been one");
}
