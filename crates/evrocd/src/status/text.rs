//! The report as text.

use std::fmt::Write as _;

use super::gather::Overview;
use super::report::urls;
use crate::instance::InstanceRecord;
use crate::supervisor::protocol::SupervisorStatus;

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
    fn the_accelerator_is_printed_with_its_cost() {
        let tcg = serde_json::json!({"accelerator": "tcg", "reason": "no /dev/kvm", "costNote": "ten times slower"});
        assert_eq!(accelerator_text(Some(&tcg)), "accelerator: tcg; ten times slower; no /dev/kvm");
        assert!(accelerator_text(None).contains("not probed yet"));
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(
            (duration(5), duration(300), duration(90_000), duration(200_000)),
            ("5s".into(), "5m".into(), "25h".into(), "2d".into())
        );
    }
}
