//! `evrocd status`: the processes, their addresses, the machine's free resources.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instance::{InstanceName, InstanceRecord, Layout};
use crate::process::{self, ProcessId};
use crate::supervisor::client;
use crate::supervisor::protocol::SupervisorStatus;

/// A guest or container, as its shim's folder describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The shim's id.
    pub id: String,
    /// `running`, `ended` or `lost` (neither a process nor an exit status).
    pub state: String,
    /// Process id while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// Everything that the command shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Instance.
    pub instance: String,
    /// `running`, `starting`, `draining`, `stopping`; `stopped` without a supervisor; `orphaned` when roles go on without one.
    pub state: String,
    /// The supervisor's answer, if one runs.
    pub supervisor: Option<SupervisorStatus>,
    /// The addresses at which it is reached.
    pub urls: Option<Urls>,
    /// Kubeconfig files that were written.
    pub kubeconfigs: Vec<PathBuf>,
    /// Roles that run without a supervisor.
    pub orphans: Vec<String>,
    /// The free resources of the machine.
    pub host: Host,
    /// How guests are accelerated, as the node found out; JSON as written there.
    pub accelerator: Option<serde_json::Value>,
}

/// Addresses for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Urls {
    /// For kubectl.
    pub api: String,
    /// Registry, as it stands in image names.
    pub registry: String,
    /// Pattern of services' addresses.
    pub services: String,
}

/// The machine's resources, in total and free.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Processors.
    pub cpus: u32,
    /// Processors not in use over the last fifth of a second.
    pub cpus_free: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory that programs can still get, in bytes.
    pub memory_free_bytes: u64,
    /// Disk below the state folder, in bytes.
    pub disk_bytes: u64,
    /// Free there, in bytes.
    pub disk_free_bytes: u64,
}

/// The addresses of an instance. Pure.
pub fn urls(domain: &str, api_port: u16, https_port: u16) -> Urls {
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    Urls {
        api: format!("https://127.0.0.1:{api_port}"),
        registry: format!("registry.{domain}{port}"),
        services: format!("https://svc-….{domain}{port}"),
    }
}

/// The output of `up` when everything is ready.
pub fn summary(status: &SupervisorStatus) -> String {
    let urls = urls(&status.domain, status.api_port, status.https_port);
    let record = status.instance.parse().ok().and_then(|name| InstanceRecord::load(&name).ok().flatten());
    let caller = crate::bootstrap::Caller::current();
    let folder = record
        .and_then(|record| {
            record.user_files.iter().find(|files| files.uid == caller.uid).map(|files| files.folder.clone())
        })
        .unwrap_or_else(|| caller.folder(&status.instance));
    let flag = if status.instance == "evroc" { String::new() } else { format!(" --instance {}", status.instance) };
    format!(
        "evroc is running (instance {instance}, evrocd {version})
  API        {api}
  Registry   {registry}
  Services   {services}
  Authority  {state}/pki/ca.crt

Next:
  export KUBECONFIG={folder}/kubeconfig
  evrocd status{flag}
  evrocd down{flag}
",
        instance = status.instance,
        version = status.version,
        api = urls.api,
        registry = urls.registry,
        services = urls.services,
        state = status.state_dir.display(),
        folder = folder.display(),
    )
}

/// Guests and containers, from the folders of their shims.
pub fn workloads(layout: &Layout, boot_id: &str) -> Vec<Workload> {
    let Ok(entries) = fs::read_dir(layout.shims()) else { return Vec::new() };
    let mut found: Vec<Workload> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| {
            let id = entry.file_name().to_string_lossy().into_owned();
            let pid = workload_process(&entry.path(), boot_id);
            let state = match pid {
                Some(_) => "running",
                None if entry.path().join("exit.json").exists() => "ended",
                None => "lost",
            };
            Workload { id, state: state.to_owned(), pid }
        })
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// The workload's process by the shim's `pid.json`, if it lives.
fn workload_process(folder: &Path, boot_id: &str) -> Option<i32> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pid {
        boot_id: String,
        child: ProcessId,
    }
    let record: Pid = serde_json::from_slice(&fs::read(folder.join("pid.json")).ok()?).ok()?;
    (record.boot_id == boot_id && record.child.open().is_some()).then_some(record.child.pid)
}

/// The node's finding about hardware acceleration.
pub fn accelerator(layout: &Layout) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(layout.accelerator()).ok()?).ok()
}

/// Gathers the overview; `None` when there is no such instance.
pub fn gather(instance: &InstanceName) -> anyhow::Result<Option<Overview>> {
    let Some(record) = InstanceRecord::load(instance)? else { return Ok(None) };
    let layout = record.layout();
    let supervisor = client::status(&layout.supervisor_socket())?;
    let boot_id = process::boot_id().unwrap_or_default();
    let orphans: Vec<String> = match supervisor {
        Some(_) => Vec::new(),
        None if record.boot_id == boot_id => {
            let alive = |(name, id): (&String, &ProcessId)| id.open().map(|_| format!("{name} (pid {})", id.pid));
            record.roles.iter().filter_map(alive).collect()
        }
        None => Vec::new(),
    };
    let state = match &supervisor {
        Some(status) => status.state.clone(),
        None if orphans.is_empty() => "stopped".to_owned(),
        None => "orphaned".to_owned(),
    };
    // The file itself is readable by root only.
    let accelerator =
        supervisor.as_ref().and_then(|status| status.accelerator.clone()).or_else(|| accelerator(&layout));
    Ok(Some(Overview {
        instance: record.instance.clone(),
        state,
        urls: record.ports.map(|ports| urls(&record.domain, ports.api.port, ports.https.port)),
        kubeconfigs: record.user_files.iter().map(|files| files.folder.join("kubeconfig")).collect(),
        orphans,
        host: host(&layout.state),
        accelerator,
        supervisor,
    }))
}

/// The machine's resources.
pub fn host(state: &Path) -> Host {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (disk_bytes, disk_free_bytes) = disk(state);
    let (cpus, cpus_free) = processors();
    Host {
        cpus,
        cpus_free,
        memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
        memory_free_bytes: meminfo_bytes(&meminfo, "MemAvailable"),
        disk_bytes,
        disk_free_bytes,
    }
}

/// Size and free bytes of the file system that holds `path`, or its nearest parent that exists.
pub fn disk(path: &Path) -> (u64, u64) {
    path.ancestors()
        .find_map(|folder| rustix::fs::statvfs(folder).ok())
        .map_or((0, 0), |found| (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
}

/// A value of /proc/meminfo in bytes.
pub fn meminfo_bytes(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Processors and how many of them were idle over a short while.
fn processors() -> (u32, f64) {
    let read = || parse_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default());
    let before = read();
    // A rate needs two readings.
    crate::process::pause(Duration::from_millis(200));
    let after = read();
    let (total, idle) = (after.1.saturating_sub(before.1), after.2.saturating_sub(before.2));
    let share = if total == 0 { 1.0 } else { idle as f64 / total as f64 };
    (after.0, (share * f64::from(after.0) * 10.0).round() / 10.0)
}

/// Count of processors, all ticks, idle ticks.
fn parse_cpu(stat: &str) -> (u32, u64, u64) {
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    let count = stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
    // The last two columns (guests) are contained in the first two.
    (count as u32, ticks.iter().take(8).sum(), ticks.iter().skip(3).take(2).sum())
}

/// The overview as text.
pub fn text(overview: &Overview) -> String {
    let mut out = String::new();
    let line = &mut out;
    let _ = writeln!(line, "instance {}: {}", overview.instance, overview.state);
    if !overview.orphans.is_empty() {
        let _ = writeln!(
            line,
            "  the supervisor has ended, these roles go on: {}; `evrocd up` takes over",
            overview.orphans.join(", ")
        );
    }
    if let Some(urls) = &overview.urls {
        let _ = writeln!(line, "  API        {}", urls.api);
        let _ = writeln!(line, "  Registry   {}", urls.registry);
        let _ = writeln!(line, "  Services   {}", urls.services);
    }
    for path in &overview.kubeconfigs {
        let _ = writeln!(line, "  Kubeconfig {}", path.display());
    }
    if let Some(supervisor) = &overview.supervisor {
        let _ = writeln!(
            line,
            "\n{:<12} {:<9} {:>8} {:>9} {:>9}  LAST EXIT",
            "PROCESS", "STATE", "PID", "UPTIME", "RESTARTS"
        );
        let _ = writeln!(
            line,
            "{:<12} {:<9} {:>8} {:>9} {:>9}",
            "supervisor",
            "running",
            supervisor.pid,
            duration(supervisor.uptime_seconds),
            "-"
        );
        for (name, role) in &supervisor.roles {
            let pid = role.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let _ = writeln!(
                line,
                "{name:<12} {:<9} {pid:>8} {:>9} {:>9}  {}",
                role.state,
                duration(role.uptime_seconds),
                role.restarts,
                role.last_exit.as_deref().unwrap_or("-")
            );
        }
        match &supervisor.workloads {
            Some(workloads) if workloads.is_empty() => {
                let _ = writeln!(line, "\nno guests or containers");
            }
            Some(workloads) => {
                let _ = writeln!(line, "\n{:<40} {:<9} {:>8}", "GUEST OR CONTAINER", "STATE", "PID");
                for workload in workloads {
                    let pid = workload.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
                    let _ = writeln!(line, "{:<40} {:<9} {pid:>8}", workload.id, workload.state);
                }
            }
            None => {
                let _ = writeln!(line, "\nguests and containers: shown to root only");
            }
        }
    }
    let host = &overview.host;
    let _ = writeln!(
        line,
        "\nfree: {:.1} of {} CPUs, {} of {} memory, {} of {} disk",
        host.cpus_free,
        host.cpus,
        gibibytes(host.memory_free_bytes),
        gibibytes(host.memory_bytes),
        gibibytes(host.disk_free_bytes),
        gibibytes(host.disk_bytes)
    );
    let _ = writeln!(line, "{}", accelerator_text(overview.accelerator.as_ref()));
    out
}

/// Describes the accelerator and its cost in one sentence.
fn accelerator_text(found: Option<&serde_json::Value>) -> String {
    let Some(found) = found else {
        return "accelerator: not probed yet; the node does it before the first guest".into();
    };
    let field = |name: &str| found[name].as_str().unwrap_or_default();
    let mut words = format!("accelerator: {}", field("accelerator"));
    for part in [field("costNote"), field("reason")].into_iter().filter(|part| !part.is_empty()) {
        words.push_str("; ");
        words.push_str(part);
    }
    words
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1u32 << 30))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_a_port_only_where_it_is_needed() {
        let other = urls("evroc.localhost", 16443, 8443);
        assert_eq!(
            (other.api.as_str(), other.registry.as_str()),
            ("https://127.0.0.1:16443", "registry.evroc.localhost:8443")
        );
    }

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(meminfo_bytes("MemTotal:       100 kB\nMemAvailable:    7 kB\n", "MemAvailable"), 7168);
        assert_eq!(meminfo_bytes("", "MemTotal"), 0);
        let stat = "cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 2\ncpu1 3 4\nintr 1\n";
        assert_eq!(parse_cpu(stat), (2, 100, 80));
        assert_eq!(parse_cpu(""), (0, 0, 0));
        assert_eq!(
            (duration(5), duration(300), duration(90_000), duration(200_000)),
            ("5s".into(), "5m".into(), "25h".into(), "2d".into())
        );
    }

    #[test]
    fn the_accelerator_is_printed_with_its_cost() {
        let tcg = serde_json::json!({"accelerator": "tcg", "reason": "no /dev/kvm", "costNote": "ten times slower"});
        assert_eq!(accelerator_text(Some(&tcg)), "accelerator: tcg; ten times slower; no /dev/kvm");
        assert!(accelerator_text(None).contains("not probed yet"));
    }

    #[test]
    fn leftovers_of_shims_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout { state: folder.path().to_owned(), run: folder.path().to_owned() };
        let own = ProcessId::current().unwrap();
        for (id, pid_json, has_exit) in [
            ("a", Some(serde_json::json!({"bootId": "b", "child": own, "shim": own})), false),
            ("b", Some(serde_json::json!({"bootId": "older", "child": own})), false),
            ("c", None, true),
        ] {
            fs::create_dir_all(layout.shims().join(id)).unwrap();
            if let Some(json) = pid_json {
                fs::write(layout.shims().join(id).join("pid.json"), json.to_string()).unwrap();
            }
            if has_exit {
                fs::write(layout.shims().join(id).join("exit.json"), "{}").unwrap();
            }
        }
        let states: Vec<String> = workloads(&layout, "b").into_iter().map(|found| found.state).collect();
        assert_eq!(states, ["running", "lost", "ended"]);
    }
}
