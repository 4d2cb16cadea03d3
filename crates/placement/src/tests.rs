//! Tables, and the comparison with an exhaustive scan.

use evroc_api::infra::Host;
use proptest::prelude::*;
use serde_json::json;

use super::{HostFacts, Need, Promised, Room, Spread, Unplaceable, choose};

const GB: u64 = 1 << 30;

fn host(name: &str, zone: &str, memory: u64, disk: u64) -> HostFacts {
    HostFacts {
        name: name.into(),
        zone: Some(zone.into()),
        is_open: true,
        room: Some(Room { cpus: 4, memory_bytes: memory * GB, disk_bytes: disk * GB }),
        ..HostFacts::default()
    }
}

fn machine(memory: u64, disk: u64) -> Need<'static> {
    Need { vcpus: 1, memory_bytes: memory * GB, disk_bytes: disk * GB, ..Need::default() }
}

#[test]
fn the_host_with_the_most_left_of_what_is_needed() {
    let mut hosts = [host("a", "x", 8, 10), host("b", "x", 16, 5), host("c", "y", 16, 20)];
    let chosen = |hosts: &[HostFacts], need: &Need<'_>| choose(hosts, need).unwrap().name.clone();
    assert_eq!(chosen(&hosts, &machine(1, 0)), "b", "the first of those with the most memory");
    assert_eq!(chosen(&hosts, &machine(1, 6)), "c", "its volumes have to fit too");
    assert_eq!(chosen(&hosts, &Need { disk_bytes: GB, ..Need::default() }), "c");
    assert_eq!(chosen(&hosts, &Need { zone: Some("x"), ..machine(1, 6) }), "a");
    assert_eq!(chosen(&hosts, &Need { host: Some("a"), ..machine(1, 0) }), "a");
    hosts[1].promised.memory_bytes = 12 * GB;
    hosts[2].is_open = false;
    assert_eq!(chosen(&hosts, &machine(1, 0)), "a");
    hosts[0].refused = Some("a is full".into());
    assert_eq!(chosen(&hosts, &machine(1, 0)), "b", "a host that the store refused is not chosen again");
}

#[test]
fn no_host_reason() {
    let two = [host("a", "x", 8, 10), host("b", "y", 16, 5)];
    let mut closed = two.clone();
    closed.iter_mut().for_each(|host| host.is_open = false);
    let mut silent = two.clone();
    silent.iter_mut().for_each(|host| host.room = None);
    let many: Vec<HostFacts> = (0..6).map(|n| host(&format!("h{n}"), "x", 1, 1)).collect();
    let far = Need { zone: Some("z"), ..machine(1, 0) };
    let bound = Need { host: Some("b"), zone: Some("x"), ..machine(1, 0) };
    let cases = [
        (choose(&[], &machine(1, 0)), Unplaceable::NoHost("there is none".into())),
        (choose(&closed, &machine(1, 0)), Unplaceable::NoHost("a, b not ready".into())),
        (choose(&two, &far), Unplaceable::NoZone(vec!["x".into(), "y".into()])),
        (choose(&two, &bound), Unplaceable::NotThere("b".into())),
        (choose(&silent, &machine(1, 0)), Unplaceable::NoReport),
        (choose(&two, &machine(20, 0)), Unplaceable::NoRoom("2 hosts: 2 have at most 16.0 GB of memory free".into())),
        (choose(&two, &machine(1, 20)), Unplaceable::NoRoom("2 hosts: 2 have at most 10.0 GB of disk free".into())),
        (choose(&two, &Need { vcpus: 5, ..Need::default() }), Unplaceable::NoRoom("2 hosts: 2 have 4 CPUs".into())),
        (choose(&many, &machine(2, 0)), Unplaceable::NoRoom("6 hosts: 6 have 1.0 GB of memory free".into())),
    ];
    for (found, expected) in cases {
        assert_eq!(found.unwrap_err(), expected);
    }
}

#[test]
fn refusals_are_counted_by_reason_and_name_a_host_only_if_it_is_the_only_one() {
    let mut hosts = ["a", "b", "c", "d", "e"].map(|name| host(name, "x", 8, 8));
    hosts[2].promised.memory_bytes = 8 * GB - GB / 5;
    let taken = ["a".to_owned(), "b".to_owned()];
    let need = Need { spread: Some(Spread { group: "web", hosts: &taken }), ..machine(1, 1) };
    let why = |hosts: &[HostFacts]| match choose(hosts, &need).unwrap_err() {
        Unplaceable::NoRoom(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&hosts[..1]), "a already runs a VM of placement group \"web\"");
    assert_eq!(why(&hosts[..3]), "3 hosts: 2 already run a VM of placement group \"web\", 1 has 0.2 GB of memory free");
    hosts[3].refused = Some("host/d has 0 of 5 memory left, 6 wanted".into());
    hosts[4].refused = Some("group/demo has 0 of 5 requests.memory left, 6 wanted (ResourceQuota \"q\")".into());
    assert_eq!(
        why(&hosts[2..]),
        "3 hosts: 1 has 0.2 GB of memory free, 1 gave its room to another a moment ago, 1 refused it: group/demo has 0 of 5 requests.memory \
         left, 6 wanted (ResourceQuota \"q\")"
    );
    hosts[2].promised.memory_bytes = 0;
    assert_eq!(choose(&hosts[..3], &need).unwrap().name, "c");
}

#[test]
fn disk_is_overcommitted_by_the_operators_ratio() {
    let host = |percent: u32| -> Host {
        serde_json::from_value(
            json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Host", "metadata": {"name": "h"},
            "spec": {"diskOvercommitPercent": percent},
            "status": {"allocatable": {"cpus": 1, "memoryBytes": 1, "diskBytes": 250}}}),
        )
        .unwrap()
    };
    let disk = |percent| HostFacts::new(&host(percent), Promised::default()).room.unwrap().disk_bytes;
    assert_eq!((disk(100), disk(150), disk(50)), (250, 375, 125));
}

fn any_host() -> impl Strategy<Value = HostFacts> {
    let room = prop::option::of((1..8u32, 0..6u64, 0..6u64));
    (0..20u8, 0..3u8, any::<bool>(), room, 0..6u64, 0..6u64, prop::bool::weighted(0.1)).prop_map(
        |(name, zone, is_open, room, memory, disk, is_refused)| HostFacts {
            name: format!("h{name:02}"),
            zone: (zone > 0).then(|| format!("z{zone}")),
            is_open,
            room: room.map(|(cpus, memory_bytes, disk_bytes)| Room { cpus, memory_bytes, disk_bytes }),
            promised: Promised { memory_bytes: memory, disk_bytes: disk },
            refused: is_refused.then(|| "no".into()),
            ..HostFacts::default()
        },
    )
}

proptest! {
    #[test]
    fn the_choice_is_that_of_an_exhaustive_scan(
        hosts in prop::collection::vec(any_host(), 0..8), zone in 0..3u8, bound in prop::option::weighted(0.2, 0..20u8),
        vcpus in 0..8u32, memory_bytes in 0..5u64, disk_bytes in 0..5u64,
        taken in prop::option::weighted(0.5, prop::collection::vec(0..20u8, 0..6)),
    ) {
        let mut hosts = hosts;
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts.dedup_by(|a, b| a.name == b.name);
        let (zone, bound) = ((zone > 0).then(|| format!("z{zone}")), bound.map(|n| format!("h{n:02}")));
        let taken = taken.map(|hosts| hosts.iter().map(|n| format!("h{n:02}")).collect::<Vec<_>>());
        let spread = taken.as_ref().map(|hosts| Spread { group: "web", hosts });
        let need = Need { zone: zone.as_deref(), host: bound.as_deref(), vcpus, memory_bytes, disk_bytes, spread };
        // Sums and not differences, so that both do not share an overflow.
        let fits = |host: &&HostFacts| {
            host.is_open
                && host.refused.is_none()
                && taken.as_ref().is_none_or(|hosts| hosts.iter().all(|name| *name != host.name))
                && (zone.is_none() || host.zone == zone)
                && bound.as_ref().is_none_or(|name| *name == host.name)
                && host.room.is_some_and(|room| {
                    vcpus <= room.cpus
                        && (memory_bytes == 0 || memory_bytes + host.promised.memory_bytes <= room.memory_bytes)
                        && (disk_bytes == 0 || disk_bytes + host.promised.disk_bytes <= room.disk_bytes)
                })
        };
        let score = |host: &HostFacts| if memory_bytes > 0 { host.free_memory() } else { host.free_disk() };
        let mut fitting: Vec<&HostFacts> = hosts.iter().filter(fits).collect();
        fitting.sort_by(|a, b| score(b).cmp(&score(a)).then(a.name.cmp(&b.name)));
        let chosen = choose(&hosts, &need).ok().map(|host| host.name.clone());
        prop_assert_eq!(chosen, fitting.first().map(|host| host.name.clone()));
    }
}
