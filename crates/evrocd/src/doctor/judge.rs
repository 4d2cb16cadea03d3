//! From facts to findings. Pure.

use std::net::{IpAddr, Ipv4Addr};

use super::facts::{Facts, Route};
use super::{Finding, Level, versions};

const GIB: u64 = 1 << 30;
/// Space that the demo images, a few disks and logs need. Less works until it is full, which is found out at the worst moment; it is no
/// failure, because a cloud that has filled its disk must still start.
const DISK_WANTED: u64 = 20 * 1_000_000_000;
/// Below this not even the images fit.
const DISK_NEEDED: u64 = 5 * 1_000_000_000;
/// Below this not even the smallest guest beside the cloud itself fits.
const MEMORY_NEEDED: u64 = GIB;
/// Below this only one or two guests fit.
const MEMORY_WANTED: u64 = 2 * GIB;
/// Open files: each connection through the gateway costs two, each watch one.
const FILES_WANTED: u64 = 4096;
/// Earlier than any build of this program: 2025-01-01.
const EARLIEST: u64 = 1_735_689_600;
/// The subnet of every VPC.
const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 24);

const CAPABILITIES: [(&str, u32, &str); 6] = [
    ("CAP_SYS_ADMIN", 21, "mounts and network namespaces"),
    ("CAP_NET_ADMIN", 12, "links, routes and firewall rules"),
    ("CAP_SETUID", 7, "giving up root"),
    ("CAP_SETGID", 6, "giving up root"),
    ("CAP_CHOWN", 0, "files of unprivileged processes"),
    ("CAP_KILL", 5, "stopping what runs as another user"),
];

/// Judges the facts.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings =
        vec![privileges(facts), tun(facts), kvm(facts), cgroups(facts), programs(facts), nftables(facts)];
    findings.push(containers(facts));
    findings.extend([disk(facts), memory(facts), open_files(facts), clock(facts)]);
    findings.extend([network(facts), forwarding(facts), names(facts), loopback(facts)]);
    findings
}

fn finding(check: &'static str, level: Level, message: impl Into<String>) -> Finding {
    Finding { check, level, message: message.into() }
}

fn privileges(facts: &Facts) -> Finding {
    let check = "privileges";
    if !facts.is_root {
        return finding(
            check,
            Level::Failure,
            "not root: guests, containers and networks cannot be made; run evrocd with sudo (checks that need root were left out)",
        );
    }
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(_, bit, _)| facts.capabilities & (1 << bit) == 0)
        .map(|(name, _, what)| format!("{name} ({what})"))
        .collect();
    if missing.is_empty() {
        return finding(check, Level::Ok, "root with the capabilities that are needed");
    }
    finding(
        check,
        Level::Failure,
        format!(
            "root without {}: this looks like a restricted container; start it with these capabilities (docker: --privileged)",
            missing.join(", ")
        ),
    )
}

fn tun(facts: &Facts) -> Finding {
    let check = "tun";
    match &facts.tun {
        Some(Ok(())) => finding(check, Level::Ok, "/dev/net/tun can be opened: guests get network links"),
        Some(Err(reason)) => finding(
            check,
            Level::Failure,
            format!(
                "/dev/net/tun cannot be opened ({reason}): guests would have no network; run `modprobe tun`, and in a container pass the device in (docker: --device /dev/net/tun)"
            ),
        ),
        None => finding(check, Level::Warning, "/dev/net/tun was not checked"),
    }
}

fn kvm(facts: &Facts) -> Finding {
    let check = "accelerator";
    match &facts.kvm {
        Some(Ok(())) => finding(
            check,
            Level::Ok,
            "/dev/kvm is there: whether guests really run with it is decided by a probe boot before the first guest",
        ),
        Some(Err(reason)) => finding(
            check,
            Level::Warning,
            format!(
                "/dev/kvm cannot be opened ({reason}): guests are emulated and run 5 to 20 times slower; give evrocd access to the device"
            ),
        ),
        None => finding(
            check,
            Level::Warning,
            "there is no /dev/kvm: guests are emulated and run 5 to 20 times slower; switch virtualisation on in the firmware, or nested virtualisation on the host of this VM",
        ),
    }
}

fn cgroups(facts: &Facts) -> Finding {
    let check = "cgroups";
    let found = &facts.cgroups;
    let has = |name: &str| {
        found.v1.iter().any(|found| found == name)
            || found.v2.as_ref().is_some_and(|v2| v2.iter().any(|found| found == name))
    };
    let kind = match (found.v1.is_empty(), &found.v2) {
        (true, None) => {
            return finding(
                check,
                Level::Failure,
                "no control groups are mounted: memory and CPU of guests and containers cannot be limited; mount them (`mount -t cgroup2 none /sys/fs/cgroup`)",
            );
        }
        (true, Some(_)) => "version 2",
        (false, None) => "version 1",
        (false, Some(_)) => "hybrid (version 1 with a unified tree)",
    };
    let missing: Vec<&str> = ["memory", "cpu", "pids"].into_iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        return finding(
            check,
            Level::Failure,
            format!(
                "control groups are {kind} but lack {}: guests and containers cannot be limited; add `cgroup_enable=memory` to the kernel's command line, or mount the missing controllers",
                missing.join(", ")
            ),
        );
    }
    match &found.writable {
        Some(Err(reason)) => finding(
            check,
            Level::Failure,
            format!(
                "control groups are {kind} but no group can be made ({reason}); in a container mount them writable (docker: --privileged --cgroupns=host)"
            ),
        ),
        Some(Ok(())) => finding(check, Level::Ok, format!("control groups are {kind}, with memory, cpu and pids")),
        None => finding(
            check,
            Level::Ok,
            format!("control groups are {kind}, with memory, cpu and pids (not tried: that needs root)"),
        ),
    }
}

fn programs(facts: &Facts) -> Finding {
    let check = "programs";
    if !facts.missing_programs.is_empty() {
        return finding(
            check,
            Level::Failure,
            format!(
                "not installed: {}: guests or containers cannot be started; run scripts/install-host-packages, or install qemu-system-x86, qemu-utils, seabios, runc and nftables",
                facts.missing_programs.join(", ")
            ),
        );
    }
    if !facts.has_firmware {
        return finding(
            check,
            Level::Failure,
            "QEMU is there but no firmware was found: guests cannot boot from their disks; install seabios (x86) or qemu-efi-aarch64 (ARM)",
        );
    }
    let problems = [
        facts.runc_version.as_deref().and_then(versions::runc_problem),
        facts.qemu_version.as_deref().and_then(versions::qemu_problem),
    ];
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    if !problems.is_empty() {
        return finding(check, Level::Failure, problems.join("; "));
    }
    finding(check, Level::Ok, "QEMU, qemu-img, runc and nft are installed")
}

fn nftables(facts: &Facts) -> Finding {
    let check = "nftables";
    match &facts.nftables {
        Some(Ok(())) => {
            finding(check, Level::Ok, "a rule set with connection tracking and NAT was accepted by the kernel")
        }
        Some(Err(reason)) => finding(
            check,
            Level::Failure,
            format!(
                "the kernel refused a rule set ({reason}): security groups and NAT cannot work; it needs nf_tables with the inet family, conntrack and NAT (`modprobe nf_tables nft_ct nft_masq`)"
            ),
        ),
        None => finding(
            check,
            Level::Warning,
            "nftables were not tried: that needs root and the program nft; run the check again with both",
        ),
    }
}

fn containers(facts: &Facts) -> Finding {
    let check = "overlay";
    if facts.has_overlay {
        finding(check, Level::Ok, "the kernel has overlayfs: containers share image layers")
    } else {
        finding(
            check,
            Level::Failure,
            "the kernel has no overlayfs: containers cannot be started; run `modprobe overlay`",
        )
    }
}

fn disk(facts: &Facts) -> Finding {
    let (check, place) = ("disk", facts.state_root.display());
    let free = gigabytes(facts.disk_free);
    let level = match facts.disk_free {
        bytes if bytes < DISK_NEEDED => Level::Failure,
        bytes if bytes < DISK_WANTED => Level::Warning,
        _ => return finding(check, Level::Ok, format!("{free} GB are free below {place}")),
    };
    finding(
        check,
        level,
        format!(
            "{free} GB are free below {place}, 20 GB are needed for images and disks: free some, or choose another disk with `evrocd up --state-dir-root DIR`"
        ),
    )
}

fn memory(facts: &Facts) -> Finding {
    let check = "memory";
    let mib = facts.memory_free / (1 << 20);
    let (level, amounts) = match facts.memory_free {
        free if free < MEMORY_NEEDED => (
            Level::Failure,
            ": not even the smallest guest (512 MiB) fits beside the cloud; end other programs or add memory",
        ),
        free if free < MEMORY_WANTED => (
            Level::Warning,
            ": enough for one or two of the smallest guests (512 MiB each); end other programs or add memory",
        ),
        _ => (Level::Ok, ""),
    };
    finding(check, level, format!("{mib} MiB of memory are free{amounts}"))
}

fn open_files(facts: &Facts) -> Finding {
    let check = "open files";
    let (soft, hard) = facts.open_files;
    if hard < FILES_WANTED {
        return finding(
            check,
            Level::Warning,
            format!(
                "at most {hard} files can be open at once: enough for a few hundred connections; raise the hard limit (`ulimit -Hn`) before starting evrocd"
            ),
        );
    }
    finding(check, Level::Ok, format!("at most {hard} files can be open at once (now {soft}, raised by evrocd)"))
}

fn clock(facts: &Facts) -> Finding {
    let check = "clock";
    if facts.now < EARLIEST {
        return finding(
            check,
            Level::Failure,
            "the clock is before 2025: certificates would be refused by every client with a right clock; set the time (`date -s`, or install chrony)",
        );
    }
    if facts.now + 24 * 3600 < facts.built {
        return finding(
            check,
            Level::Warning,
            "the clock is more than a day before this program was built: certificates made now may be refused elsewhere; set the time (`date -s`, or install chrony)",
        );
    }
    finding(check, Level::Ok, "the clock is plausible")
}

fn network(facts: &Facts) -> Finding {
    let check = "lan";
    let overlapping: Vec<&Route> = facts
        .routes
        .iter()
        .filter(|route| route.prefix > 0 && overlaps((route.network, route.prefix), SUBNET))
        .collect();
    let resolvers: Vec<String> =
        facts.nameservers.iter().filter(|server| contains(SUBNET, **server)).map(ToString::to_string).collect();
    if overlapping.is_empty() {
        return finding(check, Level::Ok, "no network of this machine is 10.0.0.0/24, which every VPC uses inside");
    }
    let list: Vec<String> =
        overlapping.iter().map(|route| format!("{}/{} on {}", route.network, route.prefix, route.link)).collect();
    let names = match resolvers.is_empty() {
        true => String::new(),
        false => format!(", among them the name server {}", resolvers.join(", ")),
    };
    finding(
        check,
        Level::Warning,
        format!(
            "this machine's network {} contains 10.0.0.0/24, which every VPC uses inside: guests cannot reach those neighbours{names}; the host itself is not affected; renumber the LAN if guests must reach it",
            list.join(", ")
        ),
    )
}

fn forwarding(facts: &Facts) -> Finding {
    let check = "forwarding";
    if facts.forward_drops.is_empty() {
        return finding(check, Level::Ok, "no firewall of this machine drops forwarded packets by policy");
    }
    finding(
        check,
        Level::Warning,
        format!(
            "{}: guests may not reach the outside; allow forwarding from and to links whose names begin with the instance's prefix, or set the policy to accept",
            facts.forward_drops.join(", ")
        ),
    )
}

fn names(facts: &Facts) -> Finding {
    let check = "names";
    let usable = |servers: &[IpAddr]| servers.iter().any(|server| !server.is_loopback());
    if facts.nameservers.is_empty() {
        return finding(
            check,
            Level::Warning,
            "/etc/resolv.conf names no server: guests can resolve no names; add a line `nameserver ADDRESS`",
        );
    }
    if usable(&facts.nameservers) {
        return finding(check, Level::Ok, format!("guests can use the name server {}", list(&facts.nameservers)));
    }
    if usable(&facts.upstream_nameservers) {
        return finding(
            check,
            Level::Ok,
            format!(
                "the name server is on this machine ({}), guests get the ones behind it: {}",
                list(&facts.nameservers),
                list(&facts.upstream_nameservers)
            ),
        );
    }
    finding(
        check,
        Level::Warning,
        format!(
            "the only name server is on this machine ({}), which guests cannot reach: they can resolve no names; put a reachable server into /etc/resolv.conf or /run/systemd/resolve/resolv.conf",
            list(&facts.nameservers)
        ),
    )
}

fn loopback(facts: &Facts) -> Finding {
    let check = "loopback";
    if facts.has_ipv6_loopback {
        finding(check, Level::Ok, "127.0.0.1 and ::1 can be listened on")
    } else {
        finding(
            check,
            Level::Warning,
            "there is no ::1: the cloud listens on 127.0.0.1 only, which is enough for its clients; nothing needs to be done",
        )
    }
}

fn list(servers: &[IpAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e9)
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn overlaps(a: (Ipv4Addr, u8), b: (Ipv4Addr, u8)) -> bool {
    let mask = mask(a.1.min(b.1));
    u32::from(a.0) & mask == u32::from(b.0) & mask
}

fn contains(network: (Ipv4Addr, u8), address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(four) if overlaps(network, (four, 32)))
}
