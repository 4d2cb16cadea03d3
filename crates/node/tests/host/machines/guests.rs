//! Real guests: boot, adoption, reboot, power off, and what their ssh server says of them.

use std::net::Ipv4Addr;

use evroc_node::agent::machine::ready::{Watched, ssh_greets};
use evroc_node::dial::Dialer;
use evroc_node::machine::Nic;
use evroc_node::net::mac::MacAddress;
use evroc_node::net::network::{Network, PortSpec, VpcSpec};
use evroc_node::net::vpc::{HostNetwork, NetworkConfig};

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJY";

#[tokio::test]
async fn a_real_guest_boots_is_adopted_keeps_its_disk_and_powers_off() {
    let mut host = with_tiny().await;
    let mut config = config("m", &["disk"]);
    config.seed.user_data = Some(
        "#!/bin/sh\necho the-marker >/marker; sync; echo disk $(cat /sys/block/vda/serial) $(cat /sys/block/vdb/serial) is written\n".into(),
    );
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;
    shows(&machine, "disk d15cdisk cidata is written").await;
    shows(&machine, "login:").await;

    // As little power as possible, and within its limits.
    let pid = machine.shim().record().child.pid;
    assert_eq!(status_line(pid, "Uid:"), format!("Uid:\t{FIRST_UID}\t{FIRST_UID}\t{FIRST_UID}\t{FIRST_UID}"));
    assert_eq!(status_line(pid, "CapEff:"), "CapEff:\t0000000000000000");
    assert_eq!(status_line(pid, "NoNewPrivs:"), "NoNewPrivs:\t1");
    assert_eq!(status_line(pid, "Seccomp:"), "Seccomp:\t2");
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "300");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!(":/{}/vm-m", host.instance)), "{groups}");

    // A new agent finds it as it was, and its console with the past on it.
    drop(machine);
    host.restart();
    let FoundMachine::Running(machine) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(machine.shim().record().child.pid, pid);
    shows(&machine, "login:").await;
    let monitor = machine.monitor().await.unwrap();
    assert_eq!(monitor.state().await.unwrap(), GuestState::Running);
    monitor.grow_disk(&Machine::disk_id(0), 700 * MIB).await.unwrap();
    host.volumes.grown("disk", 700 * MIB).await.unwrap();

    let stopped = host.runner.stop("m", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)), "{}", host.serial("m"));
    host.runner.remove("m").await.unwrap();

    // Another machine boots from the same disk and reads the data of the first.
    let mut config = self::config("other", &["disk"]);
    // Its user data does not reference its keys.
    let home = "/home/evroc-user/.ssh/authorized_keys";
    config.seed.user_data = Some(format!("#!/bin/sh\necho \"found $(cat /marker) $(grep -c ssh- {home}) keys\"\n"));
    config.seed.authorized_keys = vec![KEY.into()];
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "found the-marker 0 keys").await;
    host.runner.remove("other").await.unwrap();
    host.volumes.delete("disk").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_whose_shim_was_killed_is_ended_and_can_start_again() {
    let host = with_tiny().await;
    let config = config("m", &["disk"]);
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;
    let hypervisor = machine.shim().record().child;
    kill(machine.shim().record().shim);
    let FoundMachine::Orphaned(reason) = host.runner.observe("m").await.unwrap() else { panic!("it lost its shim") };
    assert_eq!(reason, "its shim was killed");
    assert!(hypervisor.open().unwrap().is_some(), "looking ends nothing");
    let error = host.runner.start(&config, None).await.unwrap_err();
    assert!(error.to_string().contains("expected a machine whose hypervisor has ended"), "{error}");
    let exit = host.runner.end_orphan("m").await.unwrap().unwrap();
    assert_eq!(exit.reason, "its shim was killed");
    assert!(hypervisor.open().unwrap().is_none());
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;

    // A guest that is frozen cannot react and is ended.
    let monitor = machine.monitor().await.unwrap();
    monitor.pause().await.unwrap();
    let stopped = host.runner.stop("m", Duration::from_millis(200)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::Quit, Some(0)));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_that_reboots_goes_on_in_the_same_process() {
    let host = with_tiny().await;
    let mut config = config("m", &["disk"]);
    config.seed.user_data = Some("#!/bin/sh\necho rebooting now; reboot\n".into());
    let machine = host.runner.start(&config, None).await.unwrap();
    let (mut console, mut unread) = (machine.console(MIB as usize).await.unwrap(), Vec::new());
    let mut changes = Guests::changes(&host.runner, "m").await.unwrap();
    let story = async {
        for marker in ["ready hostname=m", "rebooting now", "ready hostname=m"] {
            wait_for_serial_in(&mut console, &mut unread, &[marker]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(BOOT * 2, story).await.is_ok(), "{}", host.serial("m"));
    let reset = async { while changes.next().await.unwrap() != GuestChange::Reset {} };
    tokio::time::timeout(BOOT, reset).await.expect("the hypervisor reported the reboot");
    let FoundMachine::Running(after) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(after.shim().record().child, machine.shim().record().child);
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

/// A file on the root file system of the tiny guest, which must not run.
fn read_of_tiny(host: &Host, path: &str) -> String {
    let raw = host.root.path().join("disk.raw");
    let convert =
        Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(host.volumes.path("disk")).arg(&raw).status();
    assert!(convert.unwrap().success());
    // Its second partition, where the recipe of the image puts it.
    let at = format!("{}?offset={}", raw.display(), 41 * MIB);
    let output = Command::new("/usr/sbin/debugfs").args(["-R", &format!("cat {path}"), &at]).output().unwrap();
    std::fs::remove_file(raw).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A key with restrictions that its ssh server does not have would be a full shell, or be refused without a word.
#[tokio::test]
async fn the_tiny_guest_keeps_what_restricts_a_key_or_refuses_it() {
    let host = with_tiny().await;
    let mut config = config("m", &["disk"]);
    let restricted = format!("restrict,command=\"echo \\\"a, b\\\"\" {KEY} restricted");
    config.seed.authorized_keys = vec![
        restricted.clone(),
        format!("{KEY} plain, with \"comma\""),
        format!("from=\"10.0.0.0/8,10.1.0.0/16\" {KEY} elsewhere"),
        format!("cert-authority {KEY} authority"),
    ];
    config.seed.user_data = Some(
        "#cloud-config\nusers:\n- default\nssh_authorized_keys: ['no-pty,expiry-time=\"20300101\" ".to_owned()
            + KEY
            + " late']\n",
    );
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "login:").await;
    let log = host.serial("m");
    for (option, comment) in [("from", "elsewhere"), ("cert-authority", "authority"), ("expiry-time", "late")] {
        let line = log.lines().find(|line| line.contains(&format!("no option \"{option}\"")));
        assert!(
            line.is_some_and(|line| line.contains("ssh key not accepted") && line.trim_end().ends_with(comment)),
            "{log}"
        );
    }
    assert_eq!(log.matches("not accepted").count(), 3, "{log}");
    host.runner.stop("m", Duration::from_secs(60)).await.unwrap().unwrap();
    host.runner.remove("m").await.unwrap();

    let kept = read_of_tiny(&host, "/home/evroc-user/.ssh/authorized_keys");
    let kept: Vec<&str> = kept.lines().collect();
    assert_eq!(kept, [restricted, format!("{KEY} plain, with \"comma\"")], "{log}");
    host.volumes.delete("disk").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_that_is_still_booting_is_probed_again() {
    let host = with_tiny().await;
    host.runner.start(&config("m", &["disk"]), None).await.unwrap();
    let stopped = host.runner.stop("m", BOOT).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)), "{}", host.serial("m"));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

/// The condition GuestReady of a real guest follows its ssh server: killed, it is False within the time that its watch takes; started
/// again, True.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_guests_ssh_server_is_seen_and_its_return() {
    let host = with_tiny().await;
    let run = host.root.path().join("run");
    let network = HostNetwork::resume(
        NetworkConfig {
            linger: Duration::ZERO,
            ..NetworkConfig::new(&host.instance, &run, &host.root.path().join("state"))
        },
        Dialer::start().unwrap(),
    );
    let network = Arc::new(network.await.unwrap());
    let vpc = VpcSpec { uid: "v".into(), subnet: "10.0.0.0/24".parse().unwrap(), gateway: "10.0.0.1".parse().unwrap() };
    let address = Ipv4Addr::new(10, 0, 0, 2);
    let mac = MacAddress([2, 0xe7, 0x0c, 1, 0, 2]);
    let port = PortSpec { machine_uid: "m".into(), mac, address, hostname: "m".into() };
    let _absent = network.ensure_port(&vpc, &port).await.unwrap();
    let nic = Nic { tap: network.open_tap("v", "m").await.unwrap(), mac: mac.to_string(), mtu: None };
    let mut config = config("m", &["disk"]);
    // Each connection to port 9000 is a step.
    let script = "#!/bin/sh\nwait() { nc -l -p 9000 </dev/null >/dev/null; }\n\
        echo waiting-one; wait; killall -9 dropbear; echo ssh-server-killed\n\
        echo waiting-two; wait; dropbear -s -r /etc/dropbear/ed25519; echo ssh-server-started\n";
    config.seed.user_data = Some(script.into());
    let machine = host.runner.start(&config, Some(nic)).await.unwrap();

    let (rung, mut rings) = tokio::sync::mpsc::unbounded_channel();
    let greets = {
        let network = network.clone();
        move || {
            let network = network.clone();
            async move { ssh_greets(&*network, "v", address).await }
        }
    };
    let changes = Guests::changes(&host.runner, "m").await.unwrap();
    let watched = Watched::start(machine.run_id(), changes, greets, move || {
        let _closed = rung.send(());
    });
    let until = async |reason: &str, rings: &mut tokio::sync::mpsc::UnboundedReceiver<()>| {
        let begun = std::time::Instant::now();
        let waiting = async {
            while watched.readiness().verdict().reason != reason {
                rings.recv().await.unwrap();
            }
        };
        let found = tokio::time::timeout(BOOT, waiting).await;
        assert!(found.is_ok(), "{:?} instead of {reason}: {}", watched.readiness(), host.serial("m"));
        begun.elapsed()
    };
    let step = async |marker: &str| {
        let next = async {
            while network.connect("v", (address, 9000).into()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(BOOT, next).await.unwrap_or_else(|_| panic!("{marker}: {}", host.serial("m")));
        shows(&machine, marker).await;
    };
    let booted = until("SshAnswers", &mut rings).await;
    shows(&machine, "waiting-one").await;
    step("ssh-server-killed").await;
    let seen = until("SshSilent", &mut rings).await;
    assert!(seen < Duration::from_secs(60), "seen after {seen:?}");
    step("ssh-server-started").await;
    let again = until("SshAnswers", &mut rings).await;
    assert!(again < Duration::from_secs(60), "seen after {again:?}");
    println!("answered {booted:?} after the start, silence seen after {seen:?}, the new server after {again:?}");

    drop(watched);
    host.runner.remove("m").await.unwrap();
    network.remove_all().await.unwrap();
    host.volumes.delete("disk").await.unwrap();
    host.assert_clean().await;
}
