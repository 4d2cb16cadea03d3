use std::path::PathBuf;

use super::facts::{Cgroups, Facts, Route, capabilities, cgroup_mounts, dropping_chains, nameservers, routes};
use super::{Level, judge, text};

const GIB: u64 = 1 << 30;

fn fit() -> Facts {
    let controllers = |names: &str| names.split(' ').map(str::to_owned).collect::<Vec<_>>();
    Facts {
        is_root: true,
        capabilities: u64::MAX,
        tun: Some(Ok(())),
        kvm: Some(Ok(())),
        cgroups: Cgroups { v1: vec![], v2: Some(controllers("cpu memory pids")), writable: Some(Ok(())) },
        nftables: Some(Ok(())),
        has_overlay: true,
        disk_free: 100 * GIB,
        state_root: PathBuf::from("/var/lib"),
        memory_free: 8 * GIB,
        open_files: (1024, 20_000),
        now: 1_795_219_200,
        built: 1_795_000_000,
        routes: routes(
            "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000000 0100A8C0 3 0 0 0 00000000\n",
        ),
        forward_drops: vec![],
        nameservers: nameservers("nameserver 192.168.0.1\n"),
        upstream_nameservers: vec![],
        missing_programs: vec![],
        runc_version: Some("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\n".into()),
        qemu_version: Some("QEMU emulator version 7.2.9\n".into()),
        has_firmware: true,
        has_ipv6_loopback: true,
    }
}

/// A change of the facts, the check that must notice it, its level, and a text that the message must contain.
type Case = (fn(&mut Facts), &'static str, Level, &'static [&'static str]);

#[test]
fn each_fact_leads_to_one_sentence() {
    use Level::{Failure, Ok, Warning};
    assert!(judge(&fit()).iter().all(|finding| finding.level == Ok), "{:#?}", judge(&fit()));
    let table: &[Case] = &[
        (|f| f.is_root = false, "privileges", Failure, &["sudo"]),
        (|f| f.capabilities &= !(1 << 21), "privileges", Failure, &["CAP_SYS_ADMIN", "--privileged"]),
        (|f| f.tun = Some(Err("No such file".into())), "tun", Failure, &["No such file", "modprobe tun"]),
        (|f| f.kvm = None, "accelerator", Warning, &["emulated", "slower"]),
        (|f| f.kvm = Some(Err("Permission denied".into())), "accelerator", Warning, &["Permission denied"]),
        (|f| f.cgroups = Cgroups::default(), "cgroups", Failure, &["mount"]),
        (|f| f.cgroups.v2 = Some(vec!["cpu".into()]), "cgroups", Failure, &["version 2", "memory, pids"]),
        (|f| f.cgroups.writable = Some(Err("/sys/fs/cgroup: Read-only".into())), "cgroups", Failure, &["Read-only"]),
        (
            |f| {
                f.cgroups = Cgroups {
                    v1: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
                    v2: Some(vec!["hugetlb".into()]),
                    writable: Some(Result::Ok(())),
                }
            },
            "cgroups",
            Ok,
            &["hybrid"],
        ),
        (
            |f| {
                f.cgroups = Cgroups {
                    v1: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
                    v2: None,
                    writable: Some(Result::Ok(())),
                }
            },
            "cgroups",
            Ok,
            &["version 1"],
        ),
        (|f| f.missing_programs = vec!["runc", "nft"], "programs", Failure, &["runc, nft", "install"]),
        (
            |f| f.runc_version = Some("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1\n".into()),
            "programs",
            Failure,
            &["1.1.5+ds1-1", "CVE-2024-21626"],
        ),
        (|f| f.qemu_version = Some("QEMU emulator version 5.2.0\n".into()), "programs", Failure, &["5.2.0", "7.2"]),
        (|f| f.has_firmware = false, "programs", Failure, &["seabios"]),
        (
            |f| f.nftables = Some(Err("Operation not supported".into())),
            "nftables",
            Failure,
            &["Operation not supported"],
        ),
        (|f| f.nftables = None, "nftables", Warning, &["not tried"]),
        (|f| f.has_overlay = false, "overlay", Failure, &["modprobe overlay"]),
        (|f| f.disk_free = 4_900_000_000, "disk", Failure, &["4.9 GB", "20 GB", "--state-dir-root"]),
        (|f| f.disk_free = 19_900_000_000, "disk", Warning, &["19.9 GB", "20 GB", "--state-dir-root"]),
        (|f| f.disk_free = 20_100_000_000, "disk", Ok, &["20.1 GB"]),
        (|f| f.memory_free = GIB - 1, "memory", Failure, &["1023 MiB"]),
        (|f| f.memory_free = GIB + GIB / 2, "memory", Warning, &["1536 MiB"]),
        (|f| f.open_files = (1024, 2048), "open files", Warning, &["2048", "ulimit"]),
        (|f| f.now = 1000, "clock", Failure, &["before 2025"]),
        (|f| f.built = f.now + 3 * 24 * 3600, "clock", Warning, &["built"]),
        (|f| f.routes = vec![route("10.0.0.0", 24)], "lan", Warning, &["10.0.0.0/24 on eth0", "neighbours"]),
        (|f| f.routes = vec![route("10.0.0.0", 8)], "lan", Warning, &["10.0.0.0/8"]),
        (|f| f.routes = vec![route("10.0.0.128", 25)], "lan", Warning, &["10.0.0.128/25"]),
        (|f| f.routes = vec![route("10.0.1.0", 24)], "lan", Ok, &[]),
        (
            |f| {
                f.routes = vec![route("10.0.0.0", 24)];
                f.nameservers = nameservers("nameserver 10.0.0.1");
            },
            "lan",
            Warning,
            &["name server 10.0.0.1"],
        ),
        (
            |f| f.forward_drops = vec!["iptables chain FORWARD has policy DROP".into()],
            "forwarding",
            Warning,
            &["FORWARD", "accept"],
        ),
        (|f| f.nameservers = nameservers("nameserver 127.0.0.53"), "names", Warning, &["127.0.0.53", "resolve"]),
        (
            |f| {
                f.nameservers = nameservers("nameserver 127.0.0.53");
                f.upstream_nameservers = nameservers("nameserver 192.168.0.1");
            },
            "names",
            Ok,
            &["192.168.0.1"],
        ),
        (|f| f.nameservers = vec![], "names", Warning, &["names no server"]),
        (|f| f.has_ipv6_loopback = false, "loopback", Warning, &["127.0.0.1 only"]),
    ];
    for (change, check, level, words) in table {
        let mut facts = fit();
        change(&mut facts);
        let findings = judge(&facts);
        let found = findings.iter().find(|finding| finding.check == *check).unwrap();
        assert_eq!(found.level, *level, "{}", found.message);
        for word in *words {
            assert!(found.message.contains(word), "{word:?} in {:?}", found.message);
        }
        let others = findings.iter().filter(|finding| finding.check != *check && finding.level != Ok).count();
        assert_eq!(others, 0, "{check}: only one finding changes");
    }
}

fn route(network: &str, prefix: u8) -> Route {
    Route { link: "eth0".into(), network: network.parse().unwrap(), prefix }
}

#[test]
fn the_last_line_summarises_the_run() {
    assert!(text(&judge(&fit())).ends_with("this machine is fit\n"));
    let unfit = text(&judge(&Facts { tun: Some(Err("x".into())), kvm: None, ..fit() }));
    assert!(unfit.ends_with("this machine is not fit: 1 failures\n"), "{unfit}");
    assert!(unfit.find("WARNING").unwrap() < unfit.find("FAILURE").unwrap());
}

#[test]
fn the_kernels_tables_are_read() {
    assert_eq!(capabilities("CapPrm:\tff\nCapEff:\t0000000000200000\n"), 1 << 21);
    let mounts = "30 22 0:5 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  31 22 0:6 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                  32 22 0:7 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let (v1, v2) = cgroup_mounts(mounts);
    assert_eq!(v1.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cpu", "cpuacct"]);
    assert_eq!(v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    let table = "h\neth0 0000000A 00000000 1 0 0 0 00FFFFFF 0 0 0\n";
    assert_eq!(routes(table), [route("10.0.0.0", 24)]);
    assert_eq!(nameservers("# nameserver 1.1.1.1\nnameserver 127.0.0.53 # x\nnameserver ::1\n").len(), 2);
    let chains = r#"{"nftables":[{"chain":{"family":"ip","table":"filter","name":"FORWARD","hook":"forward","policy":"drop"}},
        {"chain":{"family":"ip","table":"filter","name":"INPUT","hook":"input","policy":"drop"}}]}"#;
    assert_eq!(dropping_chains(chains), ["nftables chain ip filter FORWARD has policy drop"]);
    assert!(dropping_chains("").is_empty());
}
