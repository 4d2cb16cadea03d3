//! A disk that forgets: its content after a crash, by the writes and the syncs until then.

use std::collections::BTreeMap;
use std::path::Path;

use super::random::Random;
use super::record::Event;

/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// How the machine or the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process alone: the system writes its buffers.
    Kill,
    /// Power: nothing without a sync exists.
    Lost,
    /// Power: everything exists, and a part of the last write.
    Torn,
    /// Power: of the unsynced writes, any sectors exist and others do not.
    Mixed,
    /// No crash but age: the process is killed, and one bit of the log has changed.
    Damage,
}

impl Crash {
    /// All of them.
    pub const ALL: [Crash; 5] = [Crash::Kill, Crash::Lost, Crash::Torn, Crash::Mixed, Crash::Damage];
    /// Those without randomness except in torn writes.
    pub const FIXED: [Crash; 3] = [Crash::Kill, Crash::Lost, Crash::Torn];
}

#[derive(Clone, Default)]
struct File {
    /// The content that surely exists, if the file does.
    synced: Vec<u8>,
    /// Whether its name surely is in the folder.
    is_named: bool,
    /// Whether it was removed, and its name may still exist.
    is_removed: bool,
    pending: Vec<Event>,
}

/// The state of the disk at a moment of the record.
#[derive(Clone, Default)]
pub struct Disk {
    files: BTreeMap<String, File>,
}

impl Disk {
    /// The disk after these events.
    pub fn after(events: &[Event]) -> Self {
        let mut disk = Disk::default();
        events.iter().for_each(|event| disk.apply(event));
        disk
    }

    /// The effect of the next event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(name) => {
                // A name that is used again before the removal was synced.
                let before = self.files.remove(name).filter(|file| file.is_named);
                let file = File { is_named: before.is_some(), ..File::default() };
                self.files.insert(name.clone(), file);
            }
            Event::Write(name, ..) | Event::Truncate(name, _) => {
                if let Some(file) = self.files.get_mut(name) {
                    file.pending.push(event.clone());
                }
            }
            Event::Remove(name) => {
                if let Some(file) = self.files.get_mut(name) {
                    file.is_removed = true;
                }
            }
            Event::Sync(name) => {
                if let Some(file) = self.files.get_mut(name) {
                    for pending in std::mem::take(&mut file.pending) {
                        apply(&mut file.synced, &pending);
                    }
                }
            }
            Event::SyncFolder => {
                self.files.retain(|_, file| !file.is_removed);
                self.files.values_mut().for_each(|file| file.is_named = true);
            }
            Event::Ack(..) => {}
        }
    }

    /// The files after a crash.
    pub fn crash(&self, crash: Crash, random: &mut Random, last: Option<&Event>) -> BTreeMap<String, Vec<u8>> {
        let mut image = BTreeMap::new();
        for (name, file) in &self.files {
            let is_there = match crash {
                Crash::Kill | Crash::Torn | Crash::Damage => !file.is_removed,
                Crash::Lost => file.is_named,
                Crash::Mixed if file.is_removed || !file.is_named => random.coin(),
                Crash::Mixed => true,
            };
            if !is_there {
                continue;
            }
            let mut content = file.synced.clone();
            for (position, event) in file.pending.iter().enumerate() {
                match crash {
                    Crash::Lost => {}
                    Crash::Kill | Crash::Damage => apply(&mut content, event),
                    Crash::Torn if position + 1 == file.pending.len() && last == Some(event) => {
                        tear(&mut content, event, random);
                    }
                    Crash::Torn => apply(&mut content, event),
                    Crash::Mixed => scatter(&mut content, event, random),
                }
            }
            image.insert(name.clone(), content);
        }
        if crash == Crash::Damage
            && let Some(log) = image.get_mut("store.db-wal").filter(|log| !log.is_empty())
        {
            let bit = random.below(log.len() * 8);
            log[bit / 8] ^= 1 << (bit % 8);
        }
        image
    }
}

/// Writes an image to an empty folder.
pub fn write(image: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    for (name, content) in image {
        std::fs::write(folder.join(name), content).expect("image is written");
    }
}

fn apply(content: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write(_, offset, data) => put(content, *offset, data),
        Event::Truncate(_, size) => content.resize(*size, 0),
        _ => {}
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

/// A part of a write from its beginning: up to any byte, for a write may stop anywhere when the process is killed in it.
fn tear(content: &mut Vec<u8>, event: &Event, random: &mut Random) {
    match event {
        Event::Write(_, offset, data) => {
            let length = random.below(data.len() + 1);
            put(content, *offset, &data[..length]);
        }
        other if random.coin() => apply(content, other),
        _ => {}
    }
}

/// Any sectors of a write.
fn scatter(content: &mut Vec<u8>, event: &Event, random: &mut Random) {
    let Event::Write(_, offset, data) = event else {
        if random.coin() {
            apply(content, event);
        }
        return;
    };
    let mut from = 0;
    while from < data.len() {
        let to = data.len().min(from + SECTOR - (offset + from) % SECTOR);
        if random.coin() {
            put(content, offset + from, &data[from..to]);
        }
        from = to;
    }
}
