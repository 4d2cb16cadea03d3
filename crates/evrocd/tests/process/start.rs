//! The first start, interrupted starts, and what two instances share.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::client::{ask_api, mode};
use crate::fixture::{EVROCD, Instance, leftovers, pause_for, signal};

#[test]
fn secrets_are_their_owners_only() {
    let instance = Instance::up();
    let base = u32::try_from(instance.record()["uids"]["base"].as_u64().unwrap()).unwrap();
    for (path, want_mode, want_uid) in [
        ("pki/authority", 0o700, 0),
        ("pki/authority/ca.key", 0o600, 0),
        ("control/pki/server.key", 0o600, base + 1),
        ("control/pki/token.key", 0o600, base + 1),
        ("control", 0o700, base + 1),
        ("edge/edge.key", 0o600, base + 2),
        ("edge/serving.key", 0o600, base + 2),
        ("edge", 0o700, base + 2),
        ("node/node.key", 0o600, 0),
        ("node/images", 0o755, 0),
        ("pki/ca.crt", 0o644, 0),
        ("bin/evrocd", 0o755, 0),
    ] {
        use std::os::unix::fs::MetadataExt;
        let path = instance.state().join(path);
        assert_eq!(mode(&path), want_mode, "{}", path.display());
        assert_eq!(std::fs::metadata(&path).unwrap().uid(), want_uid, "{}", path.display());
    }
    let user = instance.home.path().join(".evroc").join(&instance.name);
    assert_eq!((mode(&user), mode(&user.join("kubeconfig")), mode(&user.join("id_ed25519"))), (0o700, 0o600, 0o600));
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
}

/// Whether a role that was taken over could read a file.
fn reads(uid: u32, path: &Path) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("cat");
    command.arg(path).uid(uid).gid(uid).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().unwrap().success()
}

#[test]
fn no_confined_role_reads_the_key_of_the_authority_and_older_state_is_put_right() {
    let instance = Instance::up();
    let base = u32::try_from(instance.record()["uids"]["base"].as_u64().unwrap()).unwrap();
    let pki = instance.state().join("control/pki");
    let secret = instance.state().join("pki/authority");
    let check = || {
        for uid in [base + 1, base + 2] {
            assert!(!reads(uid, &secret.join("ca.key")), "user {uid}");
            assert!(reads(uid, &instance.state().join("pki/ca.crt")), "user {uid}");
        }
        assert!(reads(base + 1, &pki.join("token.key")), "control signs tokens");
        assert!(!reads(base + 2, &pki.join("token.key")), "edge does not");
        assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
    };
    check();
    // As the first format had it: the key in control's folder, and control's.
    instance.must(&["down"]);
    let key = std::fs::read(secret.join("ca.key")).unwrap();
    for name in ["ca.key", "ca.crt"] {
        std::fs::rename(secret.join(name), pki.join(name)).unwrap();
        std::os::unix::fs::chown(pki.join(name), Some(base + 1), Some(base + 1)).unwrap();
    }
    std::fs::remove_dir(&secret).unwrap();
    std::fs::write(instance.state().join("format"), r#"{"format":1,"writtenBy":"0.1.0"}"#).unwrap();
    assert!(reads(base + 1, &pki.join("ca.key")));
    let text = instance.start(&[]);
    assert!(text.contains("the key of the certificate authority is root's alone"), "{text}");
    assert_eq!(std::fs::read(secret.join("ca.key")).unwrap(), key, "the same authority");
    assert!(!pki.join("ca.key").exists());
    check();
}

#[test]
fn files_stay_when_nothing_changed() {
    let instance = Instance::up();
    let user = instance.home.path().join(".evroc").join(&instance.name);
    let files =
        ["pki/authority/ca.key", "pki/authority/ca.crt", "control/pki/server.crt", "edge/serving.crt", "node/node.crt"]
            .map(|path| instance.state().join(path));
    let read = || {
        let mut all: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
        all.extend(["kubeconfig", "id_ed25519", "id_ed25519.pub"].map(|name| std::fs::read(user.join(name)).unwrap()));
        all
    };
    let before = read();
    instance.must(&["down"]);
    instance.start(&[]);
    assert_eq!(read(), before);
    // Another domain: new server certificates, the same authority, an updated kubeconfig.
    instance.must(&["down"]);
    instance.start(&["--domain", "other.localhost"]);
    let after = read();
    assert_eq!(after[..2], before[..2]);
    assert!(after[2] != before[2] && after[3] != before[3] && after[4] == before[4]);
    assert!(String::from_utf8_lossy(&after[5]).contains("domain: other.localhost"));
    assert_eq!(after[6..], before[6..]);
}

#[test]
fn half_a_certificate_authority_is_finished_or_named() {
    let instance = Instance::up();
    instance.must(&["down"]);
    let pki = instance.state().join("pki/authority");
    std::fs::remove_file(pki.join("ca.crt")).unwrap();
    std::fs::remove_file(instance.state().join("pki/ca.crt")).unwrap();
    std::fs::write(pki.join(".tmp-ca.crt-1-1"), "half").unwrap();
    let text = instance.start(&[]);
    assert!(text.contains("finished a certificate authority that was left half made"), "{text}");
    assert!(!pki.join(".tmp-ca.crt-1-1").exists());
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);

    instance.must(&["down"]);
    let key = std::fs::read(pki.join("ca.key")).unwrap();
    std::fs::remove_file(pki.join("ca.key")).unwrap();
    let text = instance.must_fail(&["up", "--detach"]);
    assert!(text.contains("ca.key is missing") && text.contains("backup"), "{text}");
    assert_eq!(instance.status()["state"], "stopped", "nothing is left running");
    std::fs::write(pki.join("ca.key"), key).unwrap();
    instance.start(&[]);
}

#[test]
fn state_of_a_newer_version_is_named() {
    let instance = Instance::up();
    instance.must(&["down"]);
    let format = instance.state().join("format");
    let good = std::fs::read(&format).unwrap();
    std::fs::write(&format, r#"{"format":99,"writtenBy":"9.9.9"}"#).unwrap();
    let text = instance.must_fail(&["up", "--detach"]);
    assert!(text.contains("written by evrocd 9.9.9 (format 99)"), "{text}");
    std::fs::write(&format, good).unwrap();
    instance.start(&[]);
}

#[test]
fn two_instances_share_nothing() {
    let one = Instance::up();
    let two = Instance::up();
    let (a, b) = (one.record(), two.record());
    assert_ne!(a["uids"]["base"], b["uids"]["base"]);
    let mut ports = vec![one.ports().0, one.ports().1, two.ports().0, two.ports().1];
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    // Each has its own authority: the operator of one is unknown to the other.
    assert_ne!(
        std::fs::read(one.state().join("pki/ca.crt")).unwrap(),
        std::fs::read(two.state().join("pki/ca.crt")).unwrap()
    );
    let name = one.name.clone();
    drop(one);
    assert_eq!(leftovers(&name), Vec::<String>::new());
    assert_eq!(two.all_ready_but(&[]).len(), 3, "the other goes on");
}

#[test]
fn an_instance_whose_links_would_be_anothers_is_refused() {
    use evroc_node::net::names::Names;
    let instance = Instance::up();
    let prefix = |name: &str| Names::new(name).link_prefix().to_owned();
    let wanted = prefix(&instance.name);
    // Sixteen bits of a hash: among some ten thousand names there is another with the same.
    let name = (0..).map(|n| format!("evt-{n}")).find(|name| prefix(name) == wanted).unwrap();
    let twin = Instance { name, home: tempfile::tempdir().unwrap() };
    let text = twin.must_fail(&["up", "--detach", "--no-hosts-block", "--api-port", "0", "--https-port", "0"]);
    assert!(text.contains(&format!("the same names as those of instance {}", instance.name)), "{text}");
    assert!(!twin.has_record() && !twin.state().exists());
}

#[test]
fn taken_ports_are_replaced_or_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    let instance = Instance::new();
    let text = instance.must_fail(&["up", "--detach", "--no-hosts-block", "--https-port", "0", "--api-port", &taken]);
    assert!(text.contains(&format!("API port {taken} is taken by process {}", std::process::id())), "{text}");
    // Remembered ports that another process took meanwhile are replaced, and the kubeconfig follows.
    instance.start(&["--api-port", "0", "--https-port", "0"]);
    instance.must(&["down"]);
    let old = instance.ports().0;
    let _thief = TcpListener::bind(("127.0.0.1", old)).unwrap();
    let text = instance.start(&[]);
    assert_ne!(instance.ports().0, old);
    assert!(text.contains(&format!("(it was {old})")), "{text}");
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
}

#[test]
fn the_block_in_etc_hosts_comes_and_goes() {
    let instance = Instance::new();
    let domain = format!("{}.localhost", instance.name);
    let lines = || {
        let text = std::fs::read_to_string("/etc/hosts").unwrap();
        text.lines().filter(|line| line.contains(&format!("registry.{domain}"))).map(str::to_owned).collect::<Vec<_>>()
    };
    instance.must(&["up", "--detach", "--api-port", "0", "--https-port", "0", "--domain", &domain]);
    assert_eq!(lines().len(), 2, "{:?}", lines());
    instance.must(&["down"]);
    assert_eq!(lines().len(), 2, "it stays while the instance is stopped");
    instance.start(&[]);
    assert_eq!(lines().len(), 0, "--no-hosts-block takes it out");
    instance.must(&["down"]);
    instance.must(&["up", "--detach", "--hosts-block"]);
    assert_eq!(lines().len(), 2);
}

#[test]
fn an_image_is_imported_at_start_and_by_command() {
    let instance = Instance::new();
    let built = instance.home.path().join("images/tiny");
    std::fs::create_dir_all(&built).unwrap();
    std::fs::write(built.join("disk.qcow2"), b"QFI\xfbnot a real one").unwrap();
    std::fs::write(built.join("image.json"), r#"{"name":"tiny.1-0.1"}"#).unwrap();
    let folder = instance.home.path().join("images").display().to_string();
    let text = instance.start(&["--image-dir", &folder]);
    assert!(text.contains("imported image tiny.1-0.1"), "{text}");
    assert!(instance.state().join("node/images/tiny.1-0.1/disk.qcow2").exists());
    assert!(instance.must(&["image", "import", &folder]).contains("nothing to do"));
    std::fs::write(built.join("disk.qcow2"), b"half").unwrap();
    assert!(instance.must_fail(&["image", "import", &folder]).contains("expected a qcow2 disk"));
    assert!(!instance.run(Path::new(EVROCD), &["image", "import", "/no/such/folder"]).status.success());
}

/// A first start is killed at ever later moments; the next one finishes its work.
#[test]
fn a_first_start_killed_at_any_moment_is_finished() {
    for step in 0..12u64 {
        let instance = Instance::new();
        let up = ["up", "--detach", "--no-hosts-block", "--api-port", "0", "--https-port", "0"];
        let mut parent = instance.spawn(&up);
        pause_for(Duration::from_millis(step * 40));
        for pid in instance.supervisors() {
            signal(pid, "KILL");
        }
        let _ = parent.kill();
        parent.wait().unwrap();
        instance.must(&up);
        assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200, "killed after {} ms", step * 40);
    }
}

#[test]
fn after_a_reboot_pids_of_before_mean_nothing() {
    let instance = Instance::up();
    instance.must(&["down"]);
    // A stranger has the pid and start time that the record gives a role of another boot.
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
    let start_time: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let mut record = instance.record();
    record["bootId"] = "another-boot".into();
    record["roles"]["node"] = serde_json::json!({"pid": stranger.id(), "startTime": start_time});
    record["supervisor"] = record["roles"]["node"].clone();
    instance.write_record(&record);
    assert_eq!(instance.status()["state"], "stopped");
    let text = instance.start(&[]);
    assert!(text.contains("the machine was restarted"), "{text}");
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// A file system of its own, so that it can be full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mount = ["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "none"];
        assert!(std::process::Command::new("mount").args(mount).arg(disk.0.path()).status().unwrap().success());
        disk
    }

    fn grow(&self, size: &str) {
        let mount = ["-o", &format!("remount,size={size}")];
        assert!(std::process::Command::new("mount").args(mount).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_named_and_the_next_start_finishes() {
    let disk = SmallDisk::new("1m");
    let instance = Instance::new();
    let root = disk.0.path().display().to_string();
    let up = ["up", "--detach", "--no-hosts-block", "--api-port", "0", "--https-port", "0", "--state-dir-root", &root];
    let text = instance.must_fail(&up);
    assert!(text.contains("No space left on device") && text.contains(&root), "{text}");
    assert_eq!(instance.status()["state"], "stopped");
    disk.grow("2g");
    instance.must(&up);
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
    let text = instance.must_fail(&["up", "--detach", "--state-dir-root", "/somewhere/else"]);
    assert!(text.contains("keeps its state in"), "{text}");
    // The file system goes after the instance.
    drop(instance);
    drop(disk);
}

/// In containers /etc/hosts is a mount point: it cannot be replaced, so it is written in place.
#[test]
fn a_mounted_hosts_file_is_written_in_place() {
    let instance = Instance::new();
    let hosts = instance.home.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let domain = format!("{}.localhost", instance.name);
    let inside = |line: &str| {
        let script = format!("mount --bind {} /etc/hosts && exec {EVROCD} {line}", hosts.display());
        instance.run(Path::new("unshare"), &["--mount", "sh", "-c", &script, "sh"])
    };
    let name = &instance.name;
    let output = inside(&format!("up --detach --instance {name} --api-port 0 --https-port 0 --domain {domain}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&hosts).unwrap();
    assert!(text.starts_with("127.0.0.1 localhost\n") && text.contains(&format!("::1 api.{domain}")), "{text}");
    assert!(
        !std::fs::read_to_string("/etc/hosts").unwrap().contains(name.as_str()),
        "the machine's own file is untouched"
    );
    let output = inside(&format!("down --purge --instance {name}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\n");
}

#[test]
fn two_starts_at_once_make_one_cloud() {
    let instance = Instance::new();
    let up = ["up", "--detach", "--no-hosts-block", "--api-port", "0", "--https-port", "0"];
    let mut starts: Vec<_> = (0..3).map(|_| instance.spawn(&up)).collect();
    for start in &mut starts {
        assert!(start.wait().unwrap().success());
    }
    assert_eq!(instance.supervisors().len(), 1);
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
}

/// `evrocd up --detach | head -1`, and the same for the end.
#[test]
fn a_reader_that_goes_away_stops_nothing() {
    use std::process::Stdio;
    let instance = Instance::new();
    for arguments in
        [&["up", "--detach", "--no-hosts-block", "--api-port", "0", "--https-port", "0"][..], &["down", "--purge"]]
    {
        let mut child = instance.command(Path::new(EVROCD), arguments).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(child.wait().unwrap().success(), "{arguments:?}");
        assert_eq!(instance.has_record(), arguments[0] == "up");
    }
}
