//! Conditions of the Host that its agents report: what cannot be read, adopted or published.
//!
//! Several agents report on one condition, each on its own part (`machine <uid>`, `vpc <uid>`). The condition is False while one
//! part is, and its message names each part that is not in order. The heartbeat ([`super::run`]) writes it at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use evroc_api::conditions::{self, Verdict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

/// How much of a condition's message is written, in bytes. Lower hides the parts that an operator looks for; the API refuses
/// messages over 32,768.
const MESSAGE_BYTES: usize = 4096;

/// A condition that agents report on. The name of the variant is the condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Whether every record on this host can be read by this version. What cannot be read is left alone and keeps running.
    RecordsReadable,
    /// Whether the disk images of this host are published.
    ImagesPublished,
    /// Whether the networks of all VPCs on this host are as their records say.
    NetworksConverged,
    /// Whether everything that runs or is stored on this host belongs to an object of the API.
    NoOrphans,
    /// Whether the programs of the host's packages are installed: `nft`, `ip`, QEMU, the OCI runtime.
    ToolsInstalled,
}

impl Topic {
    /// All of them: a condition of one of these types without a reporter in this process is removed.
    pub const ALL: [Self; 5] =
        [Self::RecordsReadable, Self::ImagesPublished, Self::NetworksConverged, Self::NoOrphans, Self::ToolsInstalled];

    /// The condition's type.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordsReadable => "RecordsReadable",
            Self::ImagesPublished => "ImagesPublished",
            Self::NetworksConverged => "NetworksConverged",
            Self::NoOrphans => "NoOrphans",
            Self::ToolsInstalled => "ToolsInstalled",
        }
    }
}

type Parts = BTreeMap<(Topic, String), Verdict>;

/// The conditions that agents report for their host. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct HostConditions(Arc<watch::Sender<Parts>>);

impl Default for HostConditions {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Parts::new())))
    }
}

impl HostConditions {
    /// Reports on a part of a condition and wakes the heartbeat if this is new; returns whether it is. `part` names what the verdict is
    /// about, for people: `machine <uid>`, `disk images`.
    pub fn set(&self, topic: Topic, part: impl Into<String>, verdict: Verdict) -> bool {
        let key = (topic, part.into());
        self.0.send_if_modified(|parts| parts.insert(key, verdict.clone()).as_ref() != Some(&verdict))
    }

    /// Removes the report on a part: it no longer exists. The condition stays if other parts have reports.
    pub fn clear(&self, topic: Topic, part: &str) {
        let key = (topic, part.to_owned());
        self.0.send_if_modified(|parts| parts.remove(&key).is_some());
    }

    /// Returns the current verdicts, one per topic.
    pub fn verdicts(&self) -> BTreeMap<Topic, Verdict> {
        let parts = self.0.borrow();
        Topic::ALL.into_iter().filter_map(|topic| Some((topic, join(topic, &parts)?))).collect()
    }

    /// Wakes when a report changed.
    pub(super) fn changes(&self) -> watch::Receiver<Parts> {
        self.0.subscribe()
    }

    /// Brings the conditions of a Host's status up to date; conditions of other types are left alone.
    pub(super) fn write(&self, status: &mut Vec<Condition>, now: Timestamp) {
        let verdicts = self.verdicts();
        for topic in Topic::ALL {
            match verdicts.get(&topic) {
                Some(verdict) => conditions::set(status, topic.name(), verdict, None, now),
                None => status.retain(|condition| condition.type_ != topic.name()),
            }
        }
    }
}

/// The verdict over all parts of a topic: the worst status, the reason of the first part that has it, and a message that names each
/// part with that status.
fn join(topic: Topic, parts: &Parts) -> Option<Verdict> {
    let reports = || parts.iter().filter(|((of, _), _)| *of == topic);
    let status = reports().map(|(_, verdict)| verdict.status).max_by_key(|status| badness(status))?;
    let mut with_status = reports().filter(|(_, verdict)| verdict.status == status);
    let (_, first) = with_status.clone().next()?;
    if status == "True" {
        return Some(first.clone());
    }
    let mut message = String::new();
    while let Some(((_, part), verdict)) = with_status.next() {
        let sentence = format!("{part}: {}", verdict.message);
        if message.len() + sentence.len() > MESSAGE_BYTES && !message.is_empty() {
            message.push_str(&format!("; and {} more", with_status.count() + 1));
            break;
        }
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&sentence);
    }
    Some(Verdict { status, reason: first.reason.clone(), message })
}

fn badness(status: &str) -> u8 {
    match status {
        "True" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(conditions: &HostConditions) -> Vec<(String, String, String, String)> {
        let mut status = Vec::new();
        conditions.write(&mut status, Timestamp::UNIX_EPOCH);
        status.into_iter().map(|c| (c.type_, c.status, c.reason, c.message)).collect()
    }

    #[test]
    fn one_bad_part_makes_the_condition_false_and_is_named() {
        let conditions = HostConditions::default();
        conditions.set(Topic::RecordsReadable, "machines", Verdict::yes("AllRead", "all records were read"));
        conditions.set(Topic::RecordsReadable, "vpc b", Verdict::no("RecordUnreadable", "expected a record"));
        conditions.set(Topic::RecordsReadable, "vpc a", Verdict::no("RecordIsNewer", "version 9"));
        let expected = ("RecordsReadable", "False", "RecordIsNewer", "vpc a: version 9; vpc b: expected a record");
        let expected = (expected.0.into(), expected.1.into(), expected.2.into(), expected.3.into());
        assert_eq!(status(&conditions), [expected]);
        conditions.clear(Topic::RecordsReadable, "vpc a");
        conditions.clear(Topic::RecordsReadable, "vpc b");
        let expected = ("RecordsReadable".into(), "True".into(), "AllRead".into(), "all records were read".into());
        assert_eq!(status(&conditions), [expected]);
    }

    #[test]
    fn conditions_without_a_reporter_are_removed_and_other_types_stay() {
        let conditions = HostConditions::default();
        let mut status = Vec::new();
        for kind in ["Ready", "ImagesPublished"] {
            conditions::set(&mut status, kind, &Verdict::yes("Old", "old"), None, Timestamp::UNIX_EPOCH);
        }
        conditions.write(&mut status, Timestamp::UNIX_EPOCH);
        assert_eq!(status.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["Ready"]);
    }

    #[test]
    fn a_message_is_bounded_and_counts_what_it_leaves_out() {
        let conditions = HostConditions::default();
        for n in 0..100 {
            conditions.set(Topic::NoOrphans, format!("volume {n:03}"), Verdict::no("Orphan", "x".repeat(200)));
        }
        let (_, _, _, message) = status(&conditions).remove(0);
        assert!(message.len() <= MESSAGE_BYTES + 20, "{}", message.len());
        let shown = message.matches("volume").count();
        assert!(message.ends_with(&format!("; and {} more", 100 - shown)), "{message}");
    }

    #[test]
    fn the_heartbeat_wakes_for_what_is_new_only() {
        let conditions = HostConditions::default();
        let mut changes = conditions.changes();
        changes.mark_unchanged();
        let verdict = Verdict::no("Refused", "422");
        conditions.set(Topic::ImagesPublished, "image a", verdict.clone());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        conditions.set(Topic::ImagesPublished, "image a", verdict);
        conditions.clear(Topic::ImagesPublished, "image b");
        assert!(!changes.has_changed().unwrap());
    }
}
