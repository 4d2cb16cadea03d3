//! Faults that are put into the record, as if the store had them: each must be found.

use std::path::Path;

use super::disk::Crash;
use super::random::Random;
use super::record::Event;
use super::{new_record, round};

const LOG: &str = "store.db-wal";
/// Most are found within some ten rounds; it ends with the first one that finds.
const ROUNDS: u64 = 3_000;

/// A fault of a store.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Commits are not synced.
    SkippedSync,
    /// Acknowledged first, synced then.
    AcknowledgedBeforeSync,
    /// The end of the log is not compared with the acknowledged writes.
    LostTailCheck,
    /// The log's header is rewritten in place, in two writes.
    TornHeader,
    /// The last write of a commit comes after its sync.
    ReorderedWrites,
}

fn is_log_sync(event: &Event) -> bool {
    matches!(event, Event::Sync(name) if name == LOG)
}

fn plant(fault: Fault, events: &[Event]) -> Vec<Event> {
    let mut planted: Vec<Event> = Vec::new();
    for event in events {
        match (fault, event) {
            (Fault::SkippedSync, event) if is_log_sync(event) => continue,
            (Fault::AcknowledgedBeforeSync, Event::Ack(..)) => {
                if let Some(sync) = planted.iter().rposition(is_log_sync) {
                    planted.insert(sync, event.clone());
                    continue;
                }
            }
            (Fault::TornHeader, event) if is_log_sync(event) => {
                let header = header_of(&planted);
                planted.push(Event::Write(LOG.into(), 8, vec![0; 8]));
                planted.push(Event::Write(LOG.into(), 8, header[8..16].to_vec()));
            }
            (Fault::ReorderedWrites, event) if is_log_sync(event) => {
                if let Some(last) = planted.pop_if(|last| matches!(last, Event::Write(name, ..) if name == LOG)) {
                    planted.extend([event.clone(), last]);
                    continue;
                }
            }
            _ => {}
        }
        planted.push(event.clone());
    }
    planted
}

/// The first 32 bytes of the log as they were last written.
fn header_of(events: &[Event]) -> Vec<u8> {
    let found = events.iter().rev().find_map(|event| match event {
        Event::Write(name, 0, data) if name == LOG && data.len() == 32 => Some(data.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| vec![0; 32])
}

/// How many rounds it takes to find the fault.
async fn rounds_to_find(fault: Fault, events: &[Event]) -> Option<u64> {
    let planted = plant(fault, events);
    let forget_mark = |folder: &Path| {
        if matches!(fault, Fault::LostTailCheck) {
            // It may not have been written yet.
            let _ = std::fs::remove_file(folder.join("acknowledged"));
        }
    };
    for number in 0..ROUNDS {
        let mut random = Random::of(2, number);
        let moment = random.below(planted.len()) + 1;
        let crash = Crash::ALL[random.below(Crash::ALL.len())];
        if round(&planted, moment, crash, &mut random, &forget_mark).await.is_err() {
            return Some(number + 1);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_found() {
    let events = new_record();
    for fault in [
        Fault::SkippedSync,
        Fault::AcknowledgedBeforeSync,
        Fault::LostTailCheck,
        Fault::TornHeader,
        Fault::ReorderedWrites,
    ] {
        match rounds_to_find(fault, &events).await {
            Some(rounds) => println!("{fault:?}: found in round {rounds}"),
            None => panic!("{fault:?} was not found in {ROUNDS} rounds"),
        }
    }
}
