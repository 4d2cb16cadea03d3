//! The disks of a running guest: added, removed, grown; and a host's disk that is full.

use super::*;

#[tokio::test]
async fn the_disks_of_a_running_guest_become_what_is_wanted() {
    let host = Host::new(Qemu::default());
    for volume in ["boot", "data"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let owned = OwnedMachines::new(Arc::new(host.runner.clone()), DrainFlag::default());
    let mut config = config("m", &["boot"]);
    assert!(matches!(owned.ask("m", Order::Start(Box::new(config.clone()), None)).await.unwrap(), Answer::Runs(_)));
    let make_so =
        async |config: &MachineConfig| match owned.ask("m", Order::Devices(config.wanted_disks())).await.unwrap() {
            Answer::Changed(changes) => changes,
            other => panic!("{other:?}"),
        };
    assert_eq!(make_so(&config).await, []);

    config.volumes[0].size_bytes = Some(2 * MIB);
    config.volumes.push(VolumeUse {
        uid: "data".into(),
        disk_uid: Some("d15c-data".into()),
        is_boot: false,
        size_bytes: None,
    });
    let changes = make_so(&config).await;
    assert!(matches!(changes[..], [Change::Grow { .. }, Change::Attach { .. }]), "{changes:?}");
    assert_eq!(make_so(&config).await, [], "nothing is left to do");
    let sizes: Vec<_> = host.runner.disks("m").await.unwrap().into_iter().map(|d| (d.is_hot, d.size_bytes)).collect();
    assert!(sizes.contains(&(false, 2 * MIB)) && sizes.contains(&(true, MIB)), "{sizes:?}");
    assert_eq!(host.volumes.look("boot").await.unwrap().unwrap().size_bytes, 2 * MIB, "recorded");
    let owner = |volume| host.volumes.path(volume).metadata().unwrap().uid();
    assert_eq!(owner("data"), FIRST_UID);
    let other = self::config("other", &["data"]);
    let error = host.runner.start(&other, None).await.unwrap_err();
    assert!(error.to_string().contains("found volume \"data\" of machine \"m\""), "{error}");

    config.volumes.pop();
    let changes = make_so(&config).await;
    assert!(matches!(changes[..], [Change::Detach { .. }]), "{changes:?}");
    assert_eq!(owner("data"), 0, "taken back");
    owned.ask("m", Order::Remove).await.unwrap();
    host.runner.remove("other").await.unwrap();
    host.assert_clean().await;
}

/// A small disk of its own below the volumes, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, options: &str) -> Self {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(folder).status().unwrap();
        assert!(status.success());
        Self(folder.to_owned())
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_guest_whose_host_disk_is_full_is_paused_and_goes_on_with_room() {
    let host = with_tiny().await;
    let folder = host.root.path().join("state/volumes");
    let saved = host.root.path().join("saved");
    assert!(Command::new("cp").args(["-a"]).arg(&folder).arg(&saved).status().unwrap().success());
    let disk = SmallDisk::mount(&folder, "size=40m,mode=755");
    assert!(Command::new("cp").args(["-a"]).arg(saved.join(".")).arg(&folder).status().unwrap().success());

    let mut config = config("m", &["disk"]);
    let script = "#!/bin/sh\ndd if=/dev/urandom of=/big bs=1M count=80; sync; echo \"filled $(wc -c </big)\"\n";
    config.seed.user_data = Some(script.into());
    let machine = host.runner.start(&config, None).await.unwrap();
    let full = GuestState::DiskError { is_full: true };
    let paused = async {
        while machine.state().await.unwrap() != full {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(BOOT, paused).await.is_ok(), "never paused:\n{}", host.serial("m"));
    assert!(!host.runner.resume("m").await.unwrap(), "there is no room yet");
    assert_eq!(machine.state().await.unwrap(), full);
    disk.resize("400m");
    assert!(host.runner.resume("m").await.unwrap());
    shows(&machine, "filled 83886080").await;
    assert_eq!(machine.state().await.unwrap(), GuestState::Running);

    // One that stays paused is not pressed to power off in vain.
    machine.monitor().await.unwrap().pause().await.unwrap();
    let stopped = host.runner.stop("m", BOOT).await.unwrap().unwrap();
    assert_eq!(stopped.manner, StopManner::PoweredOff, "a paused guest is resumed to be asked");
    host.runner.remove("m").await.unwrap();
    drop(disk);
    host.assert_clean().await;
}
