//! The metrics that Prometheus' client libraries report of every process, read from `/proc`. Elsewhere than on Linux nothing is
//! reported.

use std::fmt;
use std::fs;

use crate::Scrape;

/// Ticks in a second of the times in `/proc`: fixed on all machines that Linux has user space for (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The facts about a process.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    cpu_seconds: Option<f64>,
    start_ticks: Option<f64>,
    threads: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
}

/// Reads the facts from the text of `stat` and `status`.
fn facts(stat: &str, status: &str) -> Facts {
    // The name of the program, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // Numbered from 1 in proc(5); the state, number 3, is the first after the name.
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let number: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()?;
        Some(number * 1024.0)
    };
    Facts {
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS),
        start_ticks: field(22),
        threads: field(20),
        resident_bytes: kibibytes("VmRSS"),
        virtual_bytes: kibibytes("VmSize"),
    }
}

/// The time of the machine's start, in seconds since 1970, from the text of `/proc/stat`.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of open files, from the text of `limits`.
fn max_open_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

pub(crate) fn collect(scrape: &mut Scrape<'_>) -> fmt::Result {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let found = facts(&read("/proc/self/stat"), &read("/proc/self/status"));
    let start = found.start_ticks.zip(boot_time(&read("/proc/stat"))).map(|(ticks, boot)| boot + ticks / TICKS);
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64);
    if let Some(seconds) = found.cpu_seconds {
        scrape.counter("process_cpu_seconds", "CPU time of the process, user and system, in seconds", seconds)?;
    }
    let gauges = [
        ("process_start_time_seconds", "When the process started, in seconds since 1970", start),
        ("process_resident_memory_bytes", "Memory of the process in RAM", found.resident_bytes),
        ("process_virtual_memory_bytes", "Address space of the process", found.virtual_bytes),
        ("process_threads", "Threads of the process", found.threads),
        ("process_open_fds", "Open file descriptors of the process", descriptors),
        (
            "process_max_fds",
            "Most file descriptors that the process may open",
            max_open_files(&read("/proc/self/limits")),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            scrape.gauge(name, help, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_whatever_the_program_is_called() {
        let stat =
            "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 7 0 12345 1000 200 18446744073709551615";
        let status = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\n";
        let want = Facts {
            cpu_seconds: Some(2.0),
            start_ticks: Some(12345.0),
            threads: Some(7.0),
            resident_bytes: Some(512.0 * 1024.0),
            virtual_bytes: Some(2048.0 * 1024.0),
        };
        assert_eq!(facts(stat, status), want);
        assert_eq!(facts("", ""), Facts::default());
        assert_eq!(boot_time("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000.0));
        let limits =
            "Max processes  1 2 processes\nMax open files            1024                 4096                 files\n";
        assert_eq!(max_open_files(limits), Some(1024.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_measured() {
        let text = crate::Registry::process().text();
        for name in ["cpu_seconds_total", "start_time_seconds", "resident_memory_bytes", "open_fds", "max_fds"] {
            let line = text.lines().find(|line| line.starts_with(&format!("process_{name} ")));
            let value: f64 = line.and_then(|line| line.split(' ').nth(1)).expect(name).parse().expect("a number");
            assert!(value > 0.0 || name.starts_with("cpu"), "{name} {value}");
        }
    }
}
