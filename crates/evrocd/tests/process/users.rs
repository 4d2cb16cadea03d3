//! Callers who are not root: their permissions.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::fixture::{EVROCD, Instance};

/// A user without any rights.
const NOBODY: u32 = 65534;

fn as_nobody(instance: &Instance, arguments: &[&str]) -> Output {
    Command::new(instance.state().join("bin/evrocd"))
        .args(arguments)
        .args(["--instance", &instance.name])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

#[test]
fn everybody_may_look_and_only_root_may_stop() {
    let instance = Instance::up();
    let output = as_nobody(&instance, &["status", "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!(status["supervisor"]["roles"]["control"]["state"], "ready");
    assert!(status["supervisor"]["workloads"].is_null(), "other people's guests are not shown");
    assert!(instance.status()["supervisor"]["workloads"].is_array());
    let text = as_nobody(&instance, &["status"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("shown to root only"));

    for arguments in [&["down"][..], &["down", "--purge"], &["image", "import", "/tmp"]] {
        let output = as_nobody(&instance, arguments);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("sudo"), "{arguments:?}");
    }
    // Not through the socket either.
    let socket = format!("/run/{}/supervisor.sock", instance.name);
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{socket}'); s.sendall(b'{{\"type\":\"down\",\"timeoutSeconds\":0}}\\n'); print(s.recv(999).decode())"
    );
    if let Ok(output) = Command::new("python3").args(["-c", &script]).uid(NOBODY).gid(NOBODY).current_dir("/").output()
    {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("only root"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(instance.all_ready_but(&[]).len(), 3);
}

#[test]
fn keys_of_roles_cannot_be_read_by_others() {
    let instance = Instance::up();
    for path in ["control/pki/ca.key", "edge/edge.key", "node/node.key", "node/config.json", "log/node.log"] {
        let path = instance.state().join(path);
        let output = Command::new("cat").arg(&path).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
        assert!(!output.status.success(), "{}", path.display());
    }
}

/// The helper that writes a user's files does it as that user.
#[test]
fn a_users_files_belong_to_the_user() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let instance = Instance::up();
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let write = |folder: &Path| {
        let wanted = json!({"folder": folder, "files": [{"name": "kubeconfig", "content": "x", "mode": 0o600}]});
        let mut child = Command::new(instance.state().join("bin/evrocd"))
            .arg("user-files")
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(wanted.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let folder = home.path().join(".evroc/x");
    let output = write(&folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::metadata(folder.join("kubeconfig")).unwrap().uid(), NOBODY);
    // A link to another user's folder has no effect: the helper has no more rights than the user.
    let target = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(target.path(), home.path().join("link")).unwrap();
    assert!(!write(&home.path().join("link")).status.success());
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}

/// `sudo evrocd up`: kubeconfig and key belong to who called sudo, and go again with the purge. The user database is one of the test's own,
/// seen in a mount namespace of its own.
#[test]
fn the_caller_of_sudo_gets_the_files() {
    use std::os::unix::fs::{MetadataExt, chown};
    const CALLER: u32 = 54_321;
    let instance = Instance::new();
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(CALLER), Some(CALLER)).unwrap();
    let passwd = home.path().join("passwd");
    let entry = format!("root:x:0:0::/root:/bin/sh\ncaller:x:{CALLER}:{CALLER}::{}:/bin/sh\n", home.path().display());
    std::fs::write(&passwd, entry).unwrap();
    let as_caller = |line: &str| {
        let script = format!(
            "mount --bind {} /etc/passwd && exec {EVROCD} {line} --instance {}",
            passwd.display(),
            instance.name
        );
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env("SUDO_UID", CALLER.to_string())
            .env("SUDO_GID", CALLER.to_string())
            .env("HOME", "/root")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{line}: {text}");
        text
    };
    let text = as_caller("up --detach --no-hosts-block --api-port 0 --https-port 0");
    let folder = home.path().join(".evroc").join(&instance.name);
    assert!(text.contains(&format!("export KUBECONFIG={}/kubeconfig", folder.display())), "{text}");
    for name in ["", "kubeconfig", "id_ed25519", "id_ed25519.pub"] {
        let found = std::fs::metadata(folder.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (CALLER, CALLER), "{name}");
    }
    as_caller("down --purge");
    assert!(!home.path().join(".evroc").exists());
}
