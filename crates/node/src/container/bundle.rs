//! The configuration of a container for the OCI runtime, `config.json`, as a pure function.

use serde_json::{Value, json};

use super::manifest::RunConfig;
use super::seccomp;
use super::user::User;

/// The PATH of a process whose image sets none (as in Docker).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Processes and threads in one container. Too low breaks thread-per-request servers; too high lets one container use up the host's
/// pids (32,768 on a small host).
const MAX_PROCESSES: u32 = 1024;
/// Length of the scheduler's accounting period, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses less.
const MIN_CPU_QUOTA_US: u64 = 1_000;

/// The annotation that holds the image's stop signal, as in OCI's conversion of images.
pub(super) const STOP_SIGNAL_ANNOTATION: &str = "org.opencontainers.image.stopSignal";

/// The part of a revision that concerns its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Replaces the image's ENTRYPOINT, and then its CMD too.
    pub command: Vec<String>,
    /// Replaces the image's CMD.
    pub args: Vec<String>,
    /// Added to the image's ENV.
    pub env: Vec<(String, String)>,
    /// The TCP port it must listen on; the environment variable `PORT`.
    pub port: u16,
    /// Limit; swap is not available on top of it.
    pub memory_bytes: u64,
    /// Limit in thousandths of a processor.
    pub cpu_millis: u32,
    /// The host name of the container.
    pub hostname: String,
}

/// Everything that `config.json` depends on.
#[derive(Debug, Clone)]
pub struct BundleInput<'a> {
    /// The part of the revision.
    pub workload: &'a Workload,
    /// The part of the image.
    pub image: &'a RunConfig,
    /// The user that it runs as.
    pub user: &'a User,
    /// `/<instance>/<container>`.
    pub cgroup: &'a str,
    /// Path of the network namespace to join.
    pub netns: &'a str,
    /// The host can limit swap (cgroup v1 without swap accounting cannot, and then the runtime fails).
    pub can_limit_swap: bool,
}

/// There is nothing to execute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("names no program: set ENTRYPOINT or CMD in the Dockerfile, or `args` in the service")]
pub struct NoProgram;

/// The program and its arguments, combined from image and user as Kubernetes does.
pub fn process_args(workload: &Workload, image: &RunConfig) -> Result<Vec<String>, NoProgram> {
    let (entrypoint, image_args) = match workload.command.is_empty() {
        true => (&image.entrypoint, image.cmd.as_slice()),
        false => (&workload.command, [].as_slice()),
    };
    let args = if workload.args.is_empty() { image_args } else { &workload.args };
    let all: Vec<_> = entrypoint.iter().chain(args).cloned().collect();
    if all.first().is_none_or(String::is_empty) { Err(NoProgram) } else { Ok(all) }
}

/// The environment: the image's, then the user's, then the platform's `PORT`; later ones win and keep the place of the first.
pub fn process_env(workload: &Workload, image: &RunConfig, user: &User) -> Vec<String> {
    let mut env: Vec<(String, String)> = vec![("PATH".into(), DEFAULT_PATH.into())];
    let home = user.home.clone().unwrap_or_else(|| "/".into());
    let image_env =
        image.env.iter().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.into(), value.into()));
    let platform = [("PORT".to_owned(), workload.port.to_string())];
    let all = [("HOSTNAME".to_owned(), workload.hostname.clone()), ("HOME".to_owned(), home)]
        .into_iter()
        .chain(image_env)
        .chain(workload.env.iter().cloned())
        .chain(platform);
    for (name, value) in all {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `config.json` of the bundle; the root file system is `rootfs` beside it, mounted by us.
pub fn config_json(input: &BundleInput<'_>) -> Result<Value, NoProgram> {
    let BundleInput { workload, image, user, .. } = input;
    let cwd = if image.working_dir.is_empty() { "/" } else { &image.working_dir };
    let quota = (u64::from(workload.cpu_millis) * CPU_PERIOD_US / 1000).max(MIN_CPU_QUOTA_US);
    let mut memory = json!({"limit": workload.memory_bytes});
    if input.can_limit_swap {
        // Memory and swap together: none of it can be swap.
        memory["swap"] = workload.memory_bytes.into();
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": workload.hostname,
        "process": {
            "terminal": false,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids, "umask": 0o022},
            "args": process_args(workload, image)?,
            "env": process_env(workload, image, user),
            "cwd": cwd,
            "noNewPrivileges": true,
            "capabilities": {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        },
        "mounts": mounts(user, workload.memory_bytes),
        "linux": {
            "cgroupsPath": input.cgroup,
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
                {"type": "network", "path": input.netns},
            ],
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": memory,
                "cpu": {
                    "shares": (u64::from(workload.cpu_millis) * 1024 / 1000).max(2),
                    "quota": quota,
                    "period": CPU_PERIOD_US,
                },
                "pids": {"limit": MAX_PROCESSES},
            },
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": seccomp::profile(),
        },
    });
    if !image.stop_signal.is_empty() {
        config["annotations"] = json!({STOP_SIGNAL_ANNOTATION: image.stop_signal});
    }
    Ok(config)
}

/// The tmpfs ones count against the container's memory, so half of that is the most that makes sense.
fn mounts(user: &User, memory_bytes: u64) -> Value {
    let half = memory_bytes / 2;
    let tmpfs = |path: &str, mode: &str, more: &[String]| {
        let mut options: Vec<_> = ["nosuid", "nodev", mode].map(String::from).into();
        options.extend(more.iter().cloned());
        json!({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options})
    };
    let size = format!("size={half}");
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", size]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        tmpfs("/tmp", "mode=1777", std::slice::from_ref(&size)),
        tmpfs("/run", "mode=755", &[size.clone(), format!("uid={}", user.uid), format!("gid={}", user.gid)]),
    ])
}

/// `/etc/hosts` of a container: its own name and no other.
pub fn hosts_file(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{hostname}\n")
}

/// `/etc/resolv.conf` of a container: there is no network, so looking up a name fails at once and not after a timeout.
pub const RESOLV_CONF: &str = "# no network: names cannot be looked up\noptions attempts:1 timeout:1\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            command: Vec::new(),
            args: Vec::new(),
            env: vec![("GREETING".into(), "hi=there".into()), ("PORT".into(), "1".into())],
            port: 8080,
            memory_bytes: 256 << 20,
            cpu_millis: 500,
            hostname: "hello-00001-abcde".into(),
        }
    }

    fn image() -> RunConfig {
        RunConfig {
            user: "65532:65532".into(),
            env: vec!["PATH=/bin".into(), "GREETING=moin".into(), "nonsense".into()],
            entrypoint: vec!["/app".into()],
            cmd: vec!["serve".into()],
            working_dir: "/srv".into(),
            ..RunConfig::default()
        }
    }

    fn user() -> User {
        User { uid: 65532, gid: 65532, additional_gids: vec![7], home: None }
    }

    #[test]
    fn the_configuration_is_the_golden_one() {
        let (workload, image, user) = (workload(), image(), user());
        let input = BundleInput {
            workload: &workload,
            image: &image,
            user: &user,
            cgroup: "/evroc/replica-1",
            netns: "/run/evroc/netns/replica-1",
            can_limit_swap: true,
        };
        let mut config = config_json(&input).unwrap();
        // The list of calls has a file and tests of its own.
        config["linux"]["seccomp"]["syscalls"][0]["names"] = "(seccomp.txt)".into();
        crate::golden::check("config.json", &format!("{config:#}\n"));
    }

    #[test]
    fn arguments_are_combined_as_kubernetes_does() {
        let arguments = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        for (command, args, want) in
            [("", "", Ok("/app serve")), ("", "a b", Ok("/app a b")), ("/x", "", Ok("/x")), ("/x", "a", Ok("/x a"))]
        {
            let workload = Workload { command: arguments(command), args: arguments(args), ..workload() };
            assert_eq!(process_args(&workload, &image()), want.map(arguments), "{command:?} {args:?}");
        }
        assert_eq!(process_args(&workload(), &RunConfig::default()), Err(NoProgram));
    }

    #[test]
    fn the_platforms_port_and_the_users_variables_win() {
        assert_eq!(
            process_env(&workload(), &image(), &user()),
            ["PATH=/bin", "HOSTNAME=hello-00001-abcde", "HOME=/", "GREETING=hi=there", "PORT=8080"]
        );
    }

    #[test]
    fn the_stop_signal_is_kept_with_the_container() {
        let (workload, image, user) = (workload(), RunConfig { stop_signal: "SIGQUIT".into(), ..image() }, user());
        let input = BundleInput {
            workload: &workload,
            image: &image,
            user: &user,
            cgroup: "",
            netns: "",
            can_limit_swap: false,
        };
        assert_eq!(config_json(&input).unwrap()["annotations"][STOP_SIGNAL_ANNOTATION], "SIGQUIT");
    }

    #[test]
    fn a_sliver_of_a_processor_is_still_legal() {
        let (workload, image, user) = (Workload { cpu_millis: 1, ..workload() }, image(), user());
        let input = BundleInput {
            workload: &workload,
            image: &image,
            user: &user,
            cgroup: "",
            netns: "",
            can_limit_swap: false,
        };
        let resources = config_json(&input).unwrap()["linux"]["resources"].clone();
        assert_eq!(resources["cpu"], json!({"shares": 2, "quota": 1000, "period": 100_000}));
        assert_eq!(resources["memory"], json!({"limit": 256 << 20}));
    }
}
