//! Decides the work on a VPC's namespace: a pure function of the desired state, the applied state, and the existing links.

use std::collections::BTreeMap;

use super::record::Record;
use crate::net::links::Links;
use crate::net::names::Names;

/// The state that was applied to the kernel for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) record: Record,
    /// The rules, as text.
    pub(super) rules: String,
    /// Indexes of the taps that were set up, by their names.
    pub(super) taps: BTreeMap<String, u32>,
}

/// The work to do. If there is none, no program has to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Steps {
    /// Settings of the namespace, the pair of links to the uplink, and the routes that are not a tap's.
    pub(super) namespace: bool,
    pub(super) rules: bool,
    /// Uids of the machines whose taps are to be set up.
    pub(super) taps: Vec<String>,
}

impl Steps {
    /// Whether nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        !self.namespace && !self.rules && self.taps.is_empty()
    }
}

/// Compares. `standing` is `None` when what stands in the kernel is unknown or is to be checked: then everything is done.
pub(super) fn steps(names: &Names, record: &Record, rules: &str, standing: Option<&Standing>, links: &Links) -> Steps {
    let is_set_up = |machine: &String, link: &String, index: &u32| {
        standing.is_some_and(|standing| {
            standing.record.vpc == record.vpc
                && standing.record.ports.get(machine) == record.ports.get(machine)
                && standing.taps.get(link) == Some(index)
        })
    };
    let existing = record.ports.keys().filter_map(|machine| {
        let link = names.tap(machine);
        links.get(&link).map(|index| (machine, link, index))
    });
    let taps = existing.filter(|(machine, link, index)| !is_set_up(machine, link, index));
    Steps {
        namespace: standing.is_none_or(|standing| {
            standing.record.vpc != record.vpc
                || standing.record.transit_slot != record.transit_slot
                || !record.previous.is_empty()
        }),
        rules: standing.is_none_or(|standing| standing.rules != rules),
        taps: taps.map(|(machine, _, _)| machine.clone()).collect(),
    }
}

/// The taps of ours among the links.
pub(super) fn taps<'a>(names: &Names, links: &'a Links) -> impl Iterator<Item = &'a str> {
    let names = names.clone();
    links.keys().map(String::as_str).filter(move |link| names.is_tap(link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::network::{PortSpec, VpcSpec};

    fn record(subnet: &str, machines: &[u8]) -> Record {
        let vpc = VpcSpec { uid: "v".into(), subnet: subnet.parse().unwrap(), gateway: "10.0.0.1".parse().unwrap() };
        let mut record = Record::new(&vpc);
        for number in machines {
            let port = PortSpec {
                machine_uid: number.to_string(),
                mac: crate::net::mac::MacAddress([2, 0, 0, 0, 0, *number]),
                address: [10, 0, 0, *number].into(),
                hostname: String::new(),
            };
            record.ports.insert(number.to_string(), port);
        }
        record
    }

    fn standing(record: &Record, names: &Names, links: &[(u8, u32)]) -> Standing {
        let taps = links.iter().map(|(machine, index)| (names.tap(&machine.to_string()), *index)).collect();
        Standing { record: record.clone(), rules: "rules".into(), taps }
    }

    #[test]
    fn only_differences_are_steps() {
        let names = Names::new("evroc");
        let links = |taps: &[(u8, u32)]| -> Links {
            let mut links: Links =
                taps.iter().map(|(machine, index)| (names.tap(&machine.to_string()), *index)).collect();
            links.insert("lo".into(), 1);
            links
        };
        let both = record("10.0.0.0/24", &[3, 4]);
        let mut moved = both.clone();
        moved.ports.get_mut("4").unwrap().address = [10, 0, 0, 9].into();
        let mut slot = both.clone();
        slot.transit_slot = Some(1);
        let wide = record("10.0.0.0/16", &[3, 4]);
        let before = standing(&both, &names, &[(3, 10), (4, 11)]);
        /// The name, the record, and the observed state; then the expected plan.
        type Case<'a> = (&'a str, &'a Record, &'a str, Option<&'a Standing>, Links, (bool, bool, &'a [&'a str]));
        let table: &[Case<'_>] = &[
            ("nothing changed", &both, "rules", Some(&before), links(&[(3, 10), (4, 11)]), (false, false, &[])),
            ("a check", &both, "rules", None, links(&[(3, 10), (4, 11)]), (true, true, &["3", "4"])),
            ("other rules", &both, "others", Some(&before), links(&[(3, 10), (4, 11)]), (false, true, &[])),
            ("a tap went", &both, "rules", Some(&before), links(&[(4, 11)]), (false, false, &[])),
            ("a tap was made again", &both, "rules", Some(&before), links(&[(3, 12), (4, 11)]), (false, false, &["3"])),
            ("an address changed", &moved, "rules", Some(&before), links(&[(3, 10), (4, 11)]), (false, false, &["4"])),
            ("a way out", &slot, "rules", Some(&before), links(&[(3, 10), (4, 11)]), (true, false, &[])),
            ("another subnet", &wide, "others", Some(&before), links(&[(3, 10), (4, 11)]), (true, true, &["3", "4"])),
        ];
        for (name, record, rules, standing, links, (namespace, changes_rules, taps)) in table {
            let taps = taps.iter().map(|tap| (*tap).to_owned()).collect();
            let want = Steps { namespace: *namespace, rules: *changes_rules, taps };
            assert_eq!(steps(&names, record, rules, *standing, links), want, "{name}");
        }
    }
}
