//! Gathers facts about this machine. Judges nothing, and changes nothing permanently.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::status::machine::{disk, meminfo_bytes};

/// Programs that the node starts.
pub const PROGRAMS: [&str; 4] = [QEMU, "qemu-img", "runc", "nft"];

#[cfg(target_arch = "x86_64")]
const QEMU: &str = "qemu-system-x86_64";
#[cfg(target_arch = "aarch64")]
const QEMU: &str = "qemu-system-aarch64";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const QEMU: &str = "qemu-system";

/// Firmware that comes with QEMU or beside it.
const FIRMWARE: [&str; 4] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
];

/// Something that was tried: it worked, or the system's error.
pub type Tried = Result<(), String>;

/// How control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    /// Controllers with a hierarchy of their own.
    pub v1: Vec<String>,
    /// Controllers of the unified hierarchy; `None` when that is not mounted.
    pub v2: Option<Vec<String>>,
    /// Whether a group could be made in each of them.
    pub writable: Option<Tried>,
}

/// A route of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Link.
    pub link: String,
    /// Network.
    pub network: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
}

/// All facts.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the caller is root.
    pub is_root: bool,
    /// Effective capabilities as a bit mask.
    pub capabilities: u64,
    /// Opening /dev/net/tun.
    pub tun: Option<Tried>,
    /// Opening /dev/kvm; `None` when there is none.
    pub kvm: Option<Tried>,
    /// Control groups.
    pub cgroups: Cgroups,
    /// A rule set like ours in a network namespace of its own; `None` when nft is missing or the caller may not try.
    pub nftables: Option<Tried>,
    /// Whether the kernel has overlayfs.
    pub has_overlay: bool,
    /// Free bytes where the state goes.
    pub disk_free: u64,
    /// The path of it.
    pub state_root: PathBuf,
    /// Memory that programs can still get.
    pub memory_free: u64,
    /// Soft and hard limit of open files.
    pub open_files: (u64, u64),
    /// Now, seconds since 1970.
    pub now: u64,
    /// When this program was built.
    pub built: u64,
    /// Routes.
    pub routes: Vec<Route>,
    /// Descriptions of rules or policies that drop forwarded packets.
    pub forward_drops: Vec<String>,
    /// Name servers of /etc/resolv.conf.
    pub nameservers: Vec<IpAddr>,
    /// Name servers behind a resolver on this machine (systemd-resolved).
    pub upstream_nameservers: Vec<IpAddr>,
    /// Programs that are missing.
    pub missing_programs: Vec<&'static str>,
    /// The output of `runc --version`; `None` if it is missing.
    pub runc_version: Option<String>,
    /// The version output of QEMU; `None` if it is missing.
    pub qemu_version: Option<String>,
    /// Whether firmware for guests was found.
    pub has_firmware: bool,
    /// Whether the machine has ::1.
    pub has_ipv6_loopback: bool,
}

/// Gathers the facts.
pub fn gather(state_root: &Path) -> Facts {
    let meminfo = read("/proc/meminfo");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let missing_programs: Vec<&'static str> =
        PROGRAMS.into_iter().filter(|name| find_program(name).is_none()).collect();
    let is_root = rustix::process::geteuid().is_root();
    let capabilities = capabilities(&read("/proc/self/status"));
    Facts {
        is_root,
        capabilities,
        tun: Some(open("/dev/net/tun")),
        kvm: Path::new("/dev/kvm").exists().then(|| open("/dev/kvm")),
        cgroups: cgroups(&read("/proc/self/mountinfo"), is_root),
        nftables: (is_root && !missing_programs.contains(&"nft")).then(try_nftables),
        has_overlay: read("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay"),
        disk_free: disk(state_root).1,
        state_root: state_root.to_owned(),
        memory_free: meminfo_bytes(&meminfo, "MemAvailable"),
        open_files: (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX)),
        now: seconds(SystemTime::now()),
        built: fs::metadata("/proc/self/exe").and_then(|found| found.modified()).map_or(0, seconds),
        routes: routes(&read("/proc/net/route")),
        forward_drops: forward_drops(),
        nameservers: nameservers(&read("/etc/resolv.conf")),
        upstream_nameservers: nameservers(&read("/run/systemd/resolve/resolv.conf")),
        missing_programs,
        runc_version: version("runc"),
        qemu_version: version(QEMU),
        has_firmware: FIRMWARE.iter().any(|path| Path::new(path).exists()),
        has_ipv6_loopback: std::net::TcpListener::bind(("::1", 0)).is_ok(),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn open(path: &str) -> Tried {
    match fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the path of a program, looking also where root's programs are.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

/// Returns the version output of a program.
fn version(name: &str) -> Option<String> {
    let output = Command::new(find_program(name)?).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Effective capabilities in /proc/self/status.
pub fn capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or_default()
}

fn cgroups(mountinfo: &str, may_try: bool) -> Cgroups {
    let (v1, v2) = cgroup_mounts(mountinfo);
    let mut points: Vec<PathBuf> = v1.iter().map(|(_, point)| point.clone()).collect();
    points.extend(v2.clone());
    points.dedup();
    let controllers = v2.map(|point| {
        let text = fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    });
    let writable = (may_try && !points.is_empty()).then(|| points.iter().try_for_each(|point| try_group(point)));
    Cgroups { v1: v1.into_iter().map(|(name, _)| name).collect(), v2: controllers, writable }
}

/// Mounted hierarchies: controllers of version 1 with their mount points, and the mount point of version 2.
pub fn cgroup_mounts(mountinfo: &str) -> (Vec<(String, PathBuf)>, Option<PathBuf>) {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
        let fields: Vec<&str> = after.split(' ').collect();
        match fields.first() {
            Some(&"cgroup2") => v2 = Some(point),
            Some(&"cgroup") => {
                let options = fields.get(2).copied().unwrap_or_default();
                let known = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];
                v1.extend(
                    options.split(',').filter(|name| known.contains(name)).map(|name| (name.to_owned(), point.clone())),
                );
            }
            _ => {}
        }
    }
    (v1, v2)
}

fn try_group(root: &Path) -> Tried {
    let group = root.join(format!("evroc-doctor-{}", std::process::id()));
    let result = fs::create_dir(&group).and_then(|()| fs::remove_dir(&group));
    result.map_err(|error| format!("{}: {error}", root.display()))
}

/// A rule set with what ours need: inet family, connection tracking, a set, NAT. In a namespace of its own, so that nothing stays.
#[allow(unsafe_code)]
fn try_nftables() -> Tried {
    const RULES: &str = "table inet evroc_doctor {
 set addresses { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/24 } }
 chain filter { type filter hook forward priority 0; policy drop; ct state established,related accept; ip saddr @addresses accept; }
 chain nat { type nat hook postrouting priority 100; ip saddr @addresses masquerade; }
}
";
    let attempt = || -> io::Result<std::process::Output> {
        let mut command = Command::new(find_program("nft").ok_or(io::ErrorKind::NotFound)?);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::unshare(libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(RULES.as_bytes())?;
        }
        child.wait_with_output()
    };
    match attempt() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("nft failed").to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Routes of /proc/net/route.
pub fn routes(text: &str) -> Vec<Route> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let word = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
            // Numbers are in the byte order of the machine.
            let network = Ipv4Addr::from(word(1)?.to_ne_bytes());
            let prefix = u32::from_be_bytes(word(7)?.to_ne_bytes()).leading_ones();
            Some(Route { link: (*fields.first()?).to_owned(), network, prefix: u8::try_from(prefix).ok()? })
        })
        .collect()
}

/// Name servers of a resolv.conf.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
        .collect()
}

/// Looks for chains that drop forwarded packets, in nftables and in the older tables.
fn forward_drops() -> Vec<String> {
    let mut found = Vec::new();
    if let Some(nft) = find_program("nft")
        && let Ok(output) = Command::new(nft).args(["-j", "list", "chains"]).stderr(Stdio::null()).output()
    {
        found.extend(dropping_chains(&String::from_utf8_lossy(&output.stdout)));
    }
    if read("/proc/net/ip_tables_names").lines().any(|line| line == "filter")
        && let Some(iptables) = find_program("iptables-legacy")
        && let Ok(output) = Command::new(iptables).args(["-S", "FORWARD"]).stderr(Stdio::null()).output()
        && String::from_utf8_lossy(&output.stdout).lines().any(|line| line.trim() == "-P FORWARD DROP")
    {
        found.push("iptables chain FORWARD has policy DROP".to_owned());
    }
    found
}

/// Base chains at the forward hook whose policy is drop, in nft's JSON.
pub fn dropping_chains(listing: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(listing).unwrap_or_default();
    let entries = value["nftables"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| &entry["chain"])
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .map(|chain| {
            let part = |name: &str| chain[name].as_str().unwrap_or("?").to_owned();
            format!("nftables chain {} {} {} has policy drop", part("family"), part("table"), part("name"))
        })
        .collect()
}
