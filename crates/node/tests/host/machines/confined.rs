//! The view of its host that a guest's hypervisor has.

use std::collections::BTreeSet;

use super::*;

/// Mount points of a process that can be written, as it sees them.
fn writable_mounts(pid: i32) -> BTreeSet<String> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|it| it[5].split(',').any(|option| option == "rw")).map(|it| it[4].to_owned()).collect()
}

#[tokio::test]
async fn a_hypervisor_sees_its_own_files_and_nothing_else_of_the_host() {
    let host = Host::new(Qemu::default());
    for volume in ["boot", "data", "another-guests"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let machine = host.runner.start(&config("m", &["boot"]), None).await.unwrap();
    let pid = machine.shim().record().child.pid;
    let (inside, state) = (PathBuf::from(format!("/proc/{pid}/root")), host.root.path().join("state"));
    let sees = |path: &Path| inside.join(path.strip_prefix("/").unwrap()).exists();
    let disk = |volume| host.volumes.path(volume);

    for namespace in ["mnt", "net", "ipc", "uts", "pid"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let top: BTreeSet<_> =
        std::fs::read_dir(&inside).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    let first = host.root.path().components().nth(1).unwrap().as_os_str().to_str().unwrap();
    let expected = BTreeSet::from(["dev", "etc", "lib", "lib64", "usr", first].map(str::to_owned));
    assert_eq!(top, expected);
    assert!(sees(&disk("boot")) && sees(&state.join("machines/m/seed.img")));
    for hidden in [
        disk("data"),
        disk("another-guests"),
        state.join("machines/m/machine.json"),
        state.join("shims"),
        host.root.path().join("run"),
        "/etc/passwd".into(),
        "/usr/bin/env".into(),
        "/proc/self".into(),
        "/dev/urandom".into(),
    ] {
        assert!(hidden.exists(), "{} is not on the host", hidden.display());
        assert!(!sees(&hidden), "{}", hidden.display());
    }
    let writable = [disk("boot").to_str().unwrap().to_owned(), "/dev/null".to_owned()];
    assert_eq!(writable_mounts(pid), BTreeSet::from(writable));

    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status_line(pid, set).ends_with("\t0000000000000000"), "{}", status_line(pid, set));
    }
    assert!(status_line(pid, "NoNewPrivs").ends_with("\t1") && status_line(pid, "Seccomp:").ends_with("\t2"));
    assert!(status_line(pid, "NSpid").ends_with("\t1"), "it is alone: {}", status_line(pid, "NSpid"));
    assert!(status_line(pid, "Groups").trim().ends_with(':'), "{}", status_line(pid, "Groups"));
    let links = Command::new("nsenter").args(["--net", "--target", &pid.to_string(), "ip", "-o", "link"]).output();
    let links = String::from_utf8(links.unwrap().stdout).unwrap();
    assert!(links.lines().count() == 1 && links.contains(" lo: ") && !links.contains(",UP"), "{links}");
    assert_eq!(std::fs::read_dir(state.join("machines/m/root")).unwrap().count(), 0, "mounted on the host");

    // A disk that it was not started with reaches it as an open file.
    let monitor = machine.monitor().await.unwrap();
    host.runner.change_disk("m", &Change::Attach { volume: "data".into(), serial: "d15cdata".into() }).await.unwrap();
    assert!(monitor.disks().await.unwrap().iter().any(|disk| disk.is_hot));
    assert!(!sees(&disk("data")));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}
