//! A container in runc: not root, no capabilities, nothing to write to but a temporary folder, no network but its namespace's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::image::Image;
use super::sandbox::{Folder, Namespace, Process, run};

/// A running container.
pub struct Container {
    process: Process,
    state: PathBuf,
    name: String,
}

impl Container {
    /// Unpacks the image and starts it as the user that it names.
    pub fn start(
        folder: &Folder,
        namespace: &Namespace,
        image: &Image,
        environment: &[(&str, &str)],
    ) -> Result<Container> {
        let bundle = folder.join("bundle");
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root)?;
        image.unpack(&root)?;
        let name = evroc_tests::names::random();
        fs::write(bundle.join("config.json"), configuration(&name, namespace, image, environment)?.to_string())?;
        let state = folder.join("runc");
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(&bundle).arg(&name);
        Ok(Container { process: Process::start(&mut command, folder.join("container.log"))?, state, name })
    }

    /// Returns what it has written so far, both streams.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has written the text.
    pub fn wait_for_log(&self, text: &str, within: Duration) -> Result<()> {
        self.process.wait_for(text, within)
    }

    /// Returns the kernel's status of its first process.
    pub fn process_status(&self) -> Result<String> {
        let state: Value = serde_json::from_str(&run(self.runc().args(["state", &self.name]))?)?;
        let path = format!("/proc/{}/status", state["pid"]);
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) -> Result<()> {
        run(self.runc().args(["kill", &self.name, signal])).map(drop)
    }

    /// Waits for its end: the exit code.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<Option<i32>> {
        Ok(self.process.wait_for_end(within)?.code())
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Fails when it has ended by itself: then runc has removed it already.
        let _ = run(self.runc().args(["delete", "--force", &self.name]));
        if let Err(error) = remove_control_groups(&self.name) {
            eprintln!("control group {} stays behind: {error:#}", self.name);
        }
    }
}

/// The container's configuration for runc. Limits stay within those that we run under: asking for more is refused without
/// CAP_SYS_RESOURCE, and so is a negative score for the out-of-memory killer.
fn configuration(name: &str, namespace: &Namespace, image: &Image, environment: &[(&str, &str)]) -> Result<Value> {
    let (user, group) = image.user().and_then(|user| user.split_once(':')).context("the image names no USER:GROUP")?;
    let (user, group): (u32, u32) = (user.parse()?, group.parse()?);
    ensure!(user > 0 && group > 0, "the image wants to run as root");
    let mut variables = vec!["PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_owned()];
    variables.extend(environment.iter().map(|(key, value)| format!("{key}={value}")));
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": name,
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "user": {"uid": user, "gid": group},
            "args": image.command(),
            "env": variables,
            "cwd": image.folder(),
            "noNewPrivileges": true,
            "capabilities": {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "oomScoreAdj": 500
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", "size=16m"]}
        ],
        "linux": {
            // A folder above the container's own, as the product has one: runc removes its own and leaves that.
            "cgroupsPath": format!("/{name}/container"),
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 64 << 20},
                "pids": {"limit": 64},
                "cpu": {"quota": 50_000, "period": 100_000}
            },
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
                {"type": "network", "path": namespace.path()}
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    }))
}

/// Removes the control group in every hierarchy: one on a v2 host, a dozen on v1 and hybrid ones.
fn remove_control_groups(name: &str) -> Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top)?.filter_map(|entry| Some(entry.ok()?.path()));
    for hierarchy in std::iter::once(top.to_owned()).chain(hierarchies) {
        let group = hierarchy.join(name);
        for folder in [group.join("container"), group] {
            if folder.exists() {
                fs::remove_dir(&folder).with_context(|| format!("remove {}", folder.display()))?;
            }
        }
    }
    Ok(())
}
