//! The screen, from two readings. Pure.

use std::fmt::Write as _;

use super::figures::Figures;
use super::read::{Process, Reading};

/// Services that are shown, those with most requests first.
const MOST_SERVICES: usize = 20;
/// Bytes of a mebibyte.
const MIB: f64 = 1_048_576.0;

/// Renders what happened between two readings.
pub(super) fn screen(before: &Reading, now: &Reading) -> String {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    let mut out = String::new();
    let mut lines = vec![["PROCESS", "CPU", "MEMORY", "FILES", "THREADS"].map(str::to_owned).to_vec()];
    for process in &now.processes {
        let name = plain(&process.name);
        lines.push(match (&process.samples, figures(before, process, seconds)) {
            (Ok(_), Some((_, it))) => vec![
                name,
                format!("{:.1} %", 100.0 * it.rate("process_cpu_seconds_total", &[])),
                format!("{:.0} MiB", it.sum("process_resident_memory_bytes", &[]) / MIB),
                format!("{:.0}", it.sum("process_open_fds", &[])),
                format!("{:.0}", it.sum("process_threads", &[])),
            ],
            (Err(why), _) => vec![name, plain(why)],
            (Ok(_), None) => vec![name],
        });
    }
    table(&mut out, lines);
    for process in &now.processes {
        let Some((name, it)) = figures(before, process, seconds) else { continue };
        match name.split_once('/') {
            None => control(&mut out, &it),
            Some(("node", host)) => node(&mut out, host, &it),
            Some(_) => edge(&mut out, &it),
        }
    }
    out
}

/// The name of a process and both readings of it, if it answered now.
fn figures<'a>(before: &'a Reading, process: &'a Process, seconds: f64) -> Option<(String, Figures<'a>)> {
    let now = process.samples.as_deref().ok()?;
    let before = before.processes.iter().find(|it| it.name == process.name);
    // One that was away before has no rates yet.
    let before = before.and_then(|it| it.samples.as_deref().ok()).unwrap_or(now);
    Some((plain(&process.name), Figures { before, now, seconds }))
}

fn control(out: &mut String, it: &Figures<'_>) {
    const API: &str = "apiserver_request_total";
    let is_error =
        |sample: &evroc_metrics::read::Sample| sample.labels.get("code").is_some_and(|it| it.starts_with('5'));
    let _ = writeln!(
        out,
        "\nAPI    {:.1} requests/s, p99 {}, {:.1} errors/s, {:.0} in flight, {:.0} watches, {:.1} refused/s",
        it.rate(API, &[]),
        time(it.quantile(0.99, "apiserver_request_duration_seconds", &[])),
        it.rate_if(API, is_error),
        it.sum("apiserver_current_inflight_requests", &[]),
        it.sum("apiserver_longrunning_requests", &[("verb", "WATCH")]),
        it.rate("apiserver_flowcontrol_rejected_requests_total", &[]),
    );
    let _ = writeln!(
        out,
        "STORE  {:.1} transactions/s, p99 {}, {:.1} syncs/s, {:.0} objects, {:.1} MiB, revision {:.0}",
        it.rate("evroc_store_transactions_total", &[]),
        time(it.quantile(0.99, "evroc_store_transaction_duration_seconds", &[])),
        it.rate("evroc_store_syncs_total", &[]),
        it.sum("apiserver_storage_objects", &[]),
        it.sum("apiserver_storage_size_bytes", &[]) / MIB,
        it.sum("evroc_apiserver_cache_revision", &[]),
    );
    let mut lines = vec![["\nCONTROLLER", "QUEUE", "RUNS/S", "P99", "ERRORS/S"].map(str::to_owned).to_vec()];
    for name in it.values("controller_runtime_reconcile_total", "controller") {
        let of = [("controller", name.as_str())];
        lines.push(vec![
            plain(&name),
            format!("{:.0}", it.sum("workqueue_depth", &[("name", &name)])),
            format!("{:.1}", it.rate("controller_runtime_reconcile_total", &of)),
            time(it.quantile(0.99, "controller_runtime_reconcile_time_seconds", &of)),
            format!("{:.1}", it.rate("controller_runtime_reconcile_errors_total", &of)),
        ]);
    }
    table(out, lines);
}

fn node(out: &mut String, host: &str, it: &Figures<'_>) {
    let phases = |name: &str| {
        let all = it
            .values(name, "phase")
            .into_iter()
            .map(|phase| format!("{:.0} {}", it.sum(name, &[("phase", &phase)]), plain(&phase).to_lowercase()));
        let all: Vec<String> = all.collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let pool = |part: &str| it.sum("evroc_node_pool_bytes", &[("part", part)]) / MIB / 1024.0;
    let _ = writeln!(out, "\nHOST {host}");
    let _ = writeln!(out, "  guests      {}", phases("evroc_node_guests"));
    let _ = writeln!(out, "  containers  {}", phases("evroc_node_containers"));
    let _ = writeln!(
        out,
        "  promised    {:.0} MiB of memory; disk for volumes: {:.1} GiB free of {:.1} GiB",
        it.sum("evroc_node_committed_memory_bytes", &[]) / MIB,
        pool("free"),
        pool("capacity"),
    );
}

fn edge(out: &mut String, it: &Figures<'_>) {
    const REQUESTS: &str = "evroc_gateway_requests_total";
    let mut services: Vec<(String, String, f64)> = it
        .now
        .iter()
        .filter(|sample| sample.name == "evroc_gateway_request_duration_seconds_count")
        .filter_map(|sample| {
            let (namespace, service) = (sample.labels.get("namespace")?, sample.labels.get("service")?);
            let rate = it.rate(REQUESTS, &[("namespace", namespace), ("service", service)]);
            Some((namespace.clone(), service.clone(), rate))
        })
        .collect();
    services.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| (&a.0, &a.1).cmp(&(&b.0, &b.1))));
    let titles = ["\nSERVICE", "REQUESTS/S", "P99", "ERRORS/S", "REPLICAS", "IN FLIGHT", "WAITING", "COLD STARTS"];
    let mut lines = vec![titles.map(str::to_owned).to_vec()];
    let others = services.len().saturating_sub(MOST_SERVICES);
    for (namespace, service, rate) in services.into_iter().take(MOST_SERVICES) {
        let of = [("namespace", namespace.as_str()), ("service", service.as_str())];
        let [a, b] = of;
        lines.push(vec![
            plain(&format!("{namespace}/{service}")),
            format!("{rate:.1}"),
            time(it.quantile(0.99, "evroc_gateway_request_duration_seconds", &of)),
            format!("{:.1}", it.rate(REQUESTS, &[a, b, ("response_code_class", "5xx")])),
            format!("{:.0}", it.sum("evroc_gateway_replicas", &[a, b, ("state", "ready")])),
            format!("{:.0}", it.sum("evroc_gateway_requests_in_flight", &of)),
            format!("{:.0}", it.sum("evroc_gateway_requests_waiting", &of)),
            format!("{:.0}", it.sum("evroc_gateway_cold_starts_total", &of)),
        ]);
    }
    if lines.len() == 1 {
        lines = vec![vec!["\nSERVICE".into()], vec!["none".into()]];
    }
    table(out, lines);
    if others > 0 {
        let _ = writeln!(out, "and {others} others with fewer requests");
    }
}

/// A time for people, or `-`.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// A name without anything that could control the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) { '?' } else { c }).collect()
}

/// Writes columns; the last cell of a line may be as long as it likes.
fn table(out: &mut String, lines: Vec<Vec<String>>) {
    let width = |column: usize| {
        let cells =
            lines.iter().filter(|line| line.len() > column + 1).map(|line| line[column].trim_start().chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    for line in &lines {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            let (start, cell) =
                if let Some(rest) = cell.strip_prefix('\n') { ("\n", rest) } else { ("", cell.as_str()) };
            let _ = write!(text, "{start}{cell:<width$}  ", width = widths[column]);
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}
