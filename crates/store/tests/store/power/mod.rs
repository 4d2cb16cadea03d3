//! Every crash of a recorded workload: at each write and each sync, the process or the power ends, a write is torn, what
//! was not synced is gone or there in any part, a sync fails.
//!
//! A run of 2,000 rounds or more goes through all moments of the record (up to 2,000) with each fixed kind of crash, and is
//! random after that; a shorter one is random from the beginning. Settings, all in the environment:
//!
//! | `EVROC_STORE_CRASH_` | what | default |
//! |---|---|---|
//! | `ROUNDS` | how many crashes | 200 |
//! | `SEED` | of the random part | 1 |
//! | `FROM` | the first round, to go on with a run that was interrupted or to repeat a failure | 0 |
//! | `RECORD` | file that keeps the record: written if it is absent, else used in place of a new one | none |

mod disk;
mod judge;
mod planted;
mod random;
mod record;
mod workload;

use std::path::Path;

use disk::{Crash, Disk};
use random::Random;
use record::{Event, record};

/// The moments that are tried, one by one.
const EXHAUSTIVE: usize = 2_000;

fn setting(name: &str, default: u64) -> u64 {
    let name = format!("EVROC_STORE_CRASH_{name}");
    match std::env::var(&name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")),
        Err(_) => default,
    }
}

/// A folder in memory where there is one: what syncs cost is not the question here.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new().prefix("evt-store-").to_owned();
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }.expect("temporary folder")
}

/// A new record of the workload.
fn new_record() -> Vec<Event> {
    let work = tempfile::tempdir().expect("temporary folder");
    let folder = work.path().join("s");
    std::fs::create_dir(&folder).expect("folder of the store");
    record(&folder, None)
}

/// One crash: the moment is after `moment` events.
async fn round(
    events: &[Event],
    moment: usize,
    crash: Crash,
    random: &mut Random,
    plant: &dyn Fn(&Path),
) -> Result<(), String> {
    let before = &events[..moment];
    let image = Disk::after(before).crash(crash, random, before.last());
    let folder = folder();
    disk::write(&image, folder.path());
    plant(folder.path());
    judge::judge(folder.path(), before, crash == Crash::Damage).await
}

/// The effect of the round with a number.
fn choose(events: &[Event], number: u64, rounds: u64, random: &mut Random) -> (usize, Crash) {
    let moments = events.len().min(EXHAUSTIVE);
    let (index, kinds) = (number as usize, Crash::FIXED.len());
    if rounds as usize >= EXHAUSTIVE && index < moments * kinds {
        return (index / kinds + 1, Crash::FIXED[index % kinds]);
    }
    (random.below(events.len()) + 1, Crash::ALL[random.below(Crash::ALL.len())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_crash_leaves_all_acknowledged_writes() {
    let (rounds, seed, from) = (setting("ROUNDS", 200), setting("SEED", 1), setting("FROM", 0));
    let events = kept_record();
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    let syncs = count(|event| matches!(event, Event::Sync(_) | Event::SyncFolder));
    let (writes, acks) =
        (count(|event| matches!(event, Event::Write(..))), count(|event| matches!(event, Event::Ack(..))));
    println!("record: {writes} writes, {syncs} syncs, {acks} acknowledgements");
    assert!(writes > 500 && syncs > 50 && acks == workload::all().len(), "the record is not of the whole workload");
    for number in from..rounds {
        if number % 1_000 == 0 && number > 0 {
            println!("round {number} of {rounds}");
        }
        let mut random = Random::of(seed, number);
        let (moment, crash) = choose(&events, number, rounds, &mut random);
        if let Err(error) = round(&events, moment, crash, &mut random, &|_| {}).await {
            panic!(
                "round {number} (seed {seed}): {crash:?} after event {moment} of {}, {:?}: {error}",
                events.len(),
                brief(&events[moment - 1])
            );
        }
    }
}

fn kept_record() -> Vec<Event> {
    let Some(file) = std::env::var_os("EVROC_STORE_CRASH_RECORD") else { return new_record() };
    let file = Path::new(&file);
    // The trace is kept as it is, with the recorded folder in the first line.
    if let Ok(kept) = std::fs::read_to_string(file) {
        let (folder, trace) = kept.split_once('\n').expect("a record that was kept");
        return record::parse(trace, folder);
    }
    let work = tempfile::tempdir().expect("temporary folder");
    let folder = work.path().join("s");
    std::fs::create_dir(&folder).expect("folder of the store");
    let events = record(&folder, None);
    let trace = std::fs::read_to_string(folder.with_extension("trace")).expect("the trace");
    std::fs::write(file, format!("{}\n{trace}", folder.display())).expect("record is kept");
    events
}

/// An event without the bytes that it writes.
fn brief(event: &Event) -> String {
    match event {
        Event::Write(name, offset, data) => format!("write {name} {offset}+{}", data.len()),
        other => format!("{other:?}"),
    }
}

/// A sync that fails ends the process: nothing is acknowledged after it, and everything before exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_sync_stops_the_store() {
    let all = setting("ROUNDS", 200) >= EXHAUSTIVE as u64;
    let syncs = new_record().iter().filter(|event| matches!(event, Event::Sync(_) | Event::SyncFolder)).count();
    let step = if all { 1 } else { syncs / 8 };
    let (mut acknowledged, mut failed) = (0, 0);
    for failing in (1..syncs).step_by(step) {
        let work = tempfile::tempdir().expect("temporary folder");
        let store = work.path().join("s");
        std::fs::create_dir(&store).expect("folder of the store");
        let events = record(&store, Some(failing));
        let acks = events.iter().filter(|event| matches!(event, Event::Ack(..))).count();
        if acks == workload::all().len() {
            // No thread makes this many syncs.
            break;
        }
        (acknowledged, failed) = (acknowledged + acks, failed + 1);
        for crash in [Crash::Kill, Crash::Lost, Crash::Mixed] {
            let mut random = Random::of(failing as u64, crash as u64);
            if let Err(error) = round(&events, events.len(), crash, &mut random, &|_| {}).await {
                panic!("sync {failing} failed, then {crash:?}: {error}");
            }
        }
    }
    println!("{failed} syncs failed, {acknowledged} acknowledgements came before them");
    assert!(failed >= 3 && acknowledged > 0, "{failed} syncs failed, {acknowledged} acknowledgements came before them");
}
