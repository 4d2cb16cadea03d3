//! The resources of the machine: processors, memory, disk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::report::Host;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(meminfo_bytes("MemTotal:       100 kB\nMemAvailable:    7 kB\n", "MemAvailable"), 7168);
        assert_eq!(meminfo_bytes("", "MemTotal"), 0);
        let stat = "cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 2\ncpu1 3 4\nintr 1\n";
        assert_eq!(parse_cpu(stat), (2, 100, 80));
        assert_eq!(parse_cpu(""), (0, 0, 0));
    }
}
