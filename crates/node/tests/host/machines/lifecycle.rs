//! From the start of a machine to its last trace: users, volumes, records, logs. Mostly with a hypervisor that only pretends.

use super::*;

#[tokio::test]
async fn a_simulated_machine_lives_and_leaves_nothing() {
    let mut host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let config = config("m", &["v"]);
    assert!(matches!(host.runner.observe("m").await.unwrap(), FoundMachine::Absent));
    let machine = host.runner.start(&config, None).await.unwrap();
    let child = machine.shim().record().child;
    shows(&machine, "login:").await;
    assert_eq!(host.runner.start(&config, None).await.unwrap().shim().record().child, child, "starting again finds it");
    drop(machine);

    host.restart();
    let FoundMachine::Running(machine) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(machine.record().epoch, 7);
    assert_eq!(machine.monitor().await.unwrap().state().await.unwrap(), GuestState::Running);
    let stopped = host.runner.stop("m", Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)));
    let again = host.runner.stop("m", Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!(again.manner, StopManner::AlreadyEnded);

    host.runner.start(&config, None).await.unwrap();
    host.runner.remove("m").await.unwrap();
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn machines_have_users_of_their_own_and_volumes_to_themselves() {
    let host = Host::new(Simulated);
    for volume in ["v", "w"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let first = host.runner.start(&config("a", &["v"]), None).await.unwrap();
    let error = host.runner.start(&config("b", &["v"]), None).await.unwrap_err();
    let text = "machine \"b\": expected volumes that no other running machine has, found volume \"v\" of machine \"a\"";
    assert_eq!(error.to_string(), text);
    let second = host.runner.start(&config("b", &["w"]), None).await.unwrap();
    let owner = |volume| host.volumes.path(volume).metadata().unwrap().uid();
    assert_eq!((owner("v"), owner("w")), (FIRST_UID, FIRST_UID + 1));
    for (machine, uid) in [(&first, FIRST_UID), (&second, FIRST_UID + 1)] {
        assert_eq!(status_line(machine.shim().record().child.pid, "Uid:"), format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
    }
    // Their shims too: one that is taken over cannot read what the other guest prints.
    let shims = [&first, &second].map(|machine| {
        let record = machine.shim().record();
        let owner = machine.shim().dir().metadata().unwrap();
        let user = status_line(record.shim.pid, "Uid:").split('\t').nth(1).unwrap().parse::<u32>().unwrap();
        assert_eq!(owner.uid(), user, "a shim owns its folder");
        let log = machine.shim().dir().join("log").metadata().unwrap();
        assert_eq!((log.uid(), log.permissions().mode() & 0o077), (user, 0), "nobody else reads the log");
        user
    });
    assert_eq!(shims, [FIRST_UID - 100, FIRST_UID - 99]);
    assert_eq!(host.runner.list().unwrap().len(), 2);
    host.runner.remove("a").await.unwrap();
    assert_eq!(owner("v"), 0, "taken back");
    host.runner.remove("b").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_missing_volume_is_named_and_the_rest_can_be_removed() {
    let host = Host::new(Simulated);
    let error = host.runner.start(&config("m", &["nope"]), None).await.unwrap_err();
    assert_eq!(error.to_string(), "volume \"nope\" is not on this host");
    assert!(matches!(host.runner.observe("m").await.unwrap(), FoundMachine::Absent));
    assert_eq!(host.runner.list().unwrap().len(), 1);
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn the_hypervisors_message_about_a_broken_disk_is_reported() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    std::fs::write(host.volumes.path("v"), "no longer a disk").unwrap();
    let error = host.runner.start(&config("m", &["v"]), None).await.unwrap_err();
    assert!(matches!(error, MachineError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("Image is not in qcow2 format"), "{error}");
    assert_eq!(host.volumes.path("v").metadata().unwrap().uid(), 0, "taken back");
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_hypervisor_that_does_not_listen_is_killed() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    let machine = host.runner.start(&config("m", &["v"]), None).await.unwrap();
    let child = machine.shim().record().child.open().unwrap().unwrap();
    child.signal(Signal::STOP).unwrap();
    let stopped = host.runner.stop("m", Duration::from_millis(200)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.signal), (StopManner::Killed, Some(9)));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

/// Its exit code is that of a guest that powered itself off.
#[tokio::test]
async fn a_hypervisor_that_a_signal_ended_says_so() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    let machine = host.runner.start(&config("m", &["v"]), None).await.unwrap();
    machine.shim().record().child.open().unwrap().unwrap().signal(Signal::TERM).unwrap();
    let exit = machine.shim().wait().await.unwrap();
    assert!(exit.is_success(), "{exit:?}");
    let line = evroc_vmm::qemu::ended_from_outside(&exit.stderr_tail).unwrap_or_default();
    assert!(line.contains("terminating on signal 15"), "{exit:?}");
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_damaged_record_stops_neither_its_machine_nor_others() {
    let host = Host::new(Simulated);
    for volume in ["v", "w"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let first = host.runner.start(&config("a", &["v"]), None).await.unwrap();
    let path = host.root.path().join("state/machines/a/machine.json");
    let record = std::fs::read(&path).unwrap();
    for (damage, expected) in [
        (&b"{"[..], "machine.json cannot be understood"),
        (br#"{"version":99}"#, "machine.json is of version 99; this program knows versions up to 2"),
    ] {
        std::fs::write(&path, damage).unwrap();
        let error = host.runner.observe("a").await.unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), expected);
        assert!(first.shim().record().child.open().unwrap().is_some(), "it runs on");
        let other = host.runner.start(&config("b", &["w"]), None).await.unwrap();
        let line = status_line(other.shim().record().child.pid, "Uid:");
        assert!(line.contains(&(FIRST_UID + 1).to_string()), "users are not shared: {line}");
        host.runner.remove("b").await.unwrap();
        let error = host.runner.start(&config("b", &["v"]), None).await.unwrap_err();
        assert!(error.to_string().contains("found volume \"v\" of machine \"a\""), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), damage, "left alone");
    }
    std::fs::write(&path, record).unwrap();
    assert!(matches!(host.runner.observe("a").await.unwrap(), FoundMachine::Running(_)));
    host.runner.remove("a").await.unwrap();
    host.runner.remove("b").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_shim_that_is_silent_is_no_end() {
    let host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let machine = host.runner.start(&config("m", &["v"]), None).await.unwrap();
    let shim = machine.shim().record().shim.open().unwrap().unwrap();
    shim.signal(Signal::STOP).unwrap();
    let error = host.runner.observe("m").await.unwrap_err();
    assert!(matches!(error, MachineError::Io { operation: "adopt", .. }), "{error}");
    assert!(machine.shim().record().child.open().unwrap().is_some(), "the guest lives on");
    shim.signal(Signal::CONT).unwrap();
    let FoundMachine::Running(found) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(found.run_id(), machine.run_id());
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn two_machines_that_start_at_once_never_share_a_volume() {
    let host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let start = |uid: &'static str| {
        let (runner, config) = (host.runner.clone(), config(uid, &["v"]));
        async move { runner.start(&config, None).await.is_ok() }
    };
    let (a, b, c) = tokio::join!(start("a"), start("b"), start("c"));
    assert_eq!([a, b, c].into_iter().filter(|started| *started).count(), 1);
    for uid in ["a", "b", "c"] {
        host.runner.remove(uid).await.unwrap();
    }
    host.assert_clean().await;
}

#[tokio::test]
async fn the_log_of_the_last_run_is_kept() {
    let host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let config = config("m", &["v"]);
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "login:").await;
    host.runner.remove("m").await.unwrap();
    let log = host.runner.serial_log(Log::Previous(&config.seed.instance_id), MIB).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&log).contains("simulated login:"));
    assert!(host.runner.serial_log(Log::Previous("another"), MIB).await.unwrap().is_none());
    host.assert_clean().await;
}

#[tokio::test]
async fn the_command_line_names_no_tenant() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    let config = MachineConfig { name: "secret-project".into(), ..config("m", &["v"]) };
    let machine = host.runner.start(&config, None).await.unwrap();
    let pid = machine.shim().record().child.pid;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line);
    assert!(line.contains("guest=m,") && !line.contains("secret-project"), "{line}");
    let record = machine.record();
    assert!(record.machine_type.as_ref().unwrap().starts_with("pc-i440fx-"), "{record:?}");
    assert!(line.contains(record.machine_type.as_ref().unwrap()), "{line}");
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}
