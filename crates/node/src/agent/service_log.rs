//! The logs of services: those of running replicas, and those kept of removed ones.
//!
//! The log of a replica is removed with it; its end is kept as `<logs>/<namespace>/<service>/<replica>-<uid>.log`, the newest
//! few of each service, so that a service without replicas still has a log.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evroc_api::infra::Replica;
use kube::ResourceExt;

use super::log_cursor::LogCursor;
use super::log_lines::{Lines, render};
use crate::shim::tail;

pub use super::log_lines::Form;

/// Kept of one replica.
pub(super) const KEPT_BYTES: u64 = 1 << 20;
/// Removed replicas that one reader remembers, so that it does not show their logs again. The API reports a removal within seconds, and no
/// host removes that many replicas of a service in that time.
const MAX_FINISHED: usize = 1024;
/// Kept replicas of one service.
const KEPT_REPLICAS: usize = 10;

/// The kept logs of this host.
#[derive(Clone, Debug)]
pub struct ServiceLogs {
    folder: PathBuf,
}

impl ServiceLogs {
    /// Keeps logs below `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn of_service(&self, namespace: &str, service: &str) -> PathBuf {
        self.folder.join(namespace).join(service)
    }

    /// Keeps the log of a replica; `shim` is its shim's folder.
    pub fn keep(&self, replica: &Replica, shim: &Path) -> io::Result<()> {
        let text = match tail(shim, KEPT_BYTES) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let folder = self.of_service(&replica.namespace().unwrap_or_default(), &replica.spec.service);
        fs::create_dir_all(&folder)?;
        let name = format!("{}-{}.log", replica.name_any(), replica.uid().unwrap_or_default());
        let fresh = folder.join(format!("{name}.new"));
        fs::File::create(&fresh)?.write_all(&text)?;
        fs::rename(&fresh, folder.join(name))?;
        for old in kept(&folder)?.into_iter().rev().skip(KEPT_REPLICAS) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// Removes the logs of a deleted service.
    pub fn forget(&self, namespace: &str, service: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.of_service(namespace, service)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Services of which logs are kept: namespace and name.
    pub fn services(&self) -> io::Result<Vec<(String, String)>> {
        let mut found = vec![];
        for namespace in folders(&self.folder)? {
            for service in folders(&self.folder.join(&namespace))? {
                found.push((namespace.clone(), service));
            }
        }
        Ok(found)
    }

    /// The kept log of each replica, oldest first: uid and entries.
    fn kept(&self, namespace: &str, service: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut found = vec![];
        for file in kept(&self.of_service(namespace, service))? {
            match fs::read(&file) {
                Ok(entries) => found.push((uid_of(&file), entries)),
                // Newer ones took its place.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// A reader of what all replicas of a service write: past, present and future ones.
pub struct Following {
    logs: ServiceLogs,
    namespace: String,
    service: String,
    /// Replicas that exist, by uid.
    replicas: BTreeMap<String, Followed>,
    /// Removed replicas whose log was read to its end.
    finished: Recent,
    is_begun: bool,
    form: Form,
}

struct Followed {
    cursor: LogCursor,
    lines: Lines,
    is_gone: bool,
}

/// The most recent of a growing set.
#[derive(Default)]
struct Recent(VecDeque<String>);

impl Recent {
    fn contains(&self, uid: &str) -> bool {
        self.0.iter().any(|known| known == uid)
    }

    fn insert(&mut self, uid: String) {
        if self.contains(&uid) {
            return;
        }
        if self.0.len() == MAX_FINISHED {
            self.0.pop_front();
        }
        self.0.push_back(uid);
    }
}

impl Following {
    /// Follows nothing yet; the first [`Self::read`] returns the kept logs of removed replicas.
    pub fn new(logs: ServiceLogs, namespace: &str, service: &str, form: Form) -> Self {
        let (namespace, service) = (namespace.to_owned(), service.to_owned());
        Self { logs, namespace, service, replicas: BTreeMap::new(), finished: Recent::default(), is_begun: false, form }
    }

    /// Whether the logs of all replicas that were followed have been read to their end.
    pub fn is_at_rest(&self) -> bool {
        self.replicas.is_empty()
    }

    /// Follows a replica, from the last `bytes` that it wrote on. One that is followed already goes on.
    pub fn begin(&mut self, uid: String, shim: PathBuf, bytes: u64) {
        if !self.finished.contains(&uid) {
            let new = || Followed { cursor: LogCursor::new(shim, bytes), lines: Lines::default(), is_gone: false };
            self.replicas.entry(uid).or_insert_with(new);
        }
    }

    /// Marks a replica as removed: the end of its log is still read.
    pub fn end(&mut self, uid: &str) {
        if let Some(followed) = self.replicas.get_mut(uid) {
            followed.is_gone = true;
        }
    }

    /// Marks all replicas as removed for which `is_present` is false.
    pub fn end_others(&mut self, is_present: impl Fn(&str) -> bool) {
        for (uid, followed) in &mut self.replicas {
            followed.is_gone |= !is_present(uid);
        }
    }

    /// Returns the output since the last call, as the containers wrote it, in the order of writing.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut lines = vec![];
        let mut missed = HashSet::new();
        for (uid, followed) in &mut self.replicas {
            followed.lines.add(&followed.cursor.read()?, &mut lines);
            if followed.is_gone {
                followed.lines.finish(&mut lines);
            }
            if !followed.cursor.is_begun() && (followed.is_gone || !self.is_begun) {
                // It came and went between two looks, or its container was removed just now.
                missed.insert(uid.clone());
            }
        }
        if !self.is_begun || !missed.is_empty() {
            for (uid, kept) in self.logs.kept(&self.namespace, &self.service)? {
                if missed.contains(&uid) || (!self.is_begun && !self.replicas.contains_key(&uid)) {
                    let mut container = Lines::default();
                    container.add(&kept, &mut lines);
                    container.finish(&mut lines);
                    self.finished.insert(uid);
                }
            }
            self.is_begun = true;
        }
        let removed = self.replicas.iter().filter(|(_, followed)| followed.is_gone).map(|(uid, _)| uid.clone());
        removed.collect::<Vec<_>>().into_iter().for_each(|uid| self.finished.insert(uid));
        let finished = &self.finished;
        self.replicas.retain(|uid, _| !finished.contains(uid));
        Ok(render(lines, self.form))
    }

    /// Lines that were begun but have no end yet, for a reader who does not go on.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut lines = vec![];
        self.replicas.values_mut().for_each(|followed| followed.lines.finish(&mut lines));
        render(lines, self.form)
    }
}

/// The last `count` lines of `text`.
pub fn lines_from_end(text: &[u8], count: u64) -> &[u8] {
    let without_end = text.strip_suffix(b"\n").unwrap_or(text);
    let Some(last) = count.checked_sub(1) else { return &[] };
    let ends = without_end.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
    let begin = usize::try_from(last).ok().and_then(|last| ends.into_iter().nth(last));
    &text[begin.unwrap_or(0)..]
}

/// The replica of a kept file.
fn uid_of(file: &Path) -> String {
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // `<name>-<uid>`, and a uid has four dashes of its own.
    let start = name.rmatch_indices('-').nth(4).map_or(0, |(place, _)| place + 1);
    name[start..].to_owned()
}

/// Kept files, oldest first.
fn kept(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "log") {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn folders(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        entries => Ok(entries?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const UID_A: &str = "11111111-1111-4111-8111-111111111111";
    const UID_B: &str = "22222222-2222-4222-8222-222222222222";

    fn replica(name: &str, uid: &str) -> Replica {
        serde_json::from_value(json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Replica",
            "metadata": {"name": name, "namespace": "demo", "uid": uid}, "spec": {"hostName": "h", "epoch": 1, "service": "hello",
            "revision": "r", "repository": "r", "digest": "d", "port": 1, "memoryBytes": 1, "cpuMillis": 1}}))
        .unwrap()
    }

    #[test]
    fn logs_outlive_their_replicas_and_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let logs = ServiceLogs::new(folder.path().join("logs"));
        let shim = folder.path().join("shim");
        fs::create_dir(&shim).unwrap();
        fs::write(shim.join("log"), "2026-01-01T00:00:02.000000000Z stdout F second\n").unwrap();
        logs.keep(&replica("a", UID_A), &shim).unwrap();
        fs::write(
            shim.join("log"),
            "2026-01-01T00:00:01.000000000Z stdout P fir\n2026-01-01T00:00:01.100000000Z stdout F st\n",
        )
        .unwrap();
        let read = || {
            let mut following = Following::new(logs.clone(), "demo", "hello", Form::default());
            following.begin(UID_B.into(), shim.clone(), KEPT_BYTES);
            String::from_utf8(following.read().unwrap()).unwrap()
        };
        assert_eq!(read(), "first\nsecond\n");
        // Kept, and its shim not yet removed: shown once.
        logs.keep(&replica("b", UID_B), &shim).unwrap();
        assert_eq!(read(), "first\nsecond\n");
        fs::remove_dir_all(&shim).unwrap();
        assert_eq!(read(), "first\nsecond\n", "removed here, not yet removed from the API");
        assert_eq!(logs.services().unwrap(), [("demo".to_owned(), "hello".to_owned())]);
        logs.forget("demo", "hello").unwrap();
        assert_eq!(Following::new(logs, "demo", "hello", Form::default()).read().unwrap(), b"");
    }

    #[test]
    fn only_the_newest_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let logs = ServiceLogs::new(folder.path().join("logs"));
        fs::write(folder.path().join("log"), "x\n").unwrap();
        for n in 0..KEPT_REPLICAS + 3 {
            logs.keep(&replica("r", &format!("u{n}")), folder.path()).unwrap();
        }
        assert_eq!(kept(&logs.of_service("demo", "hello")).unwrap().len(), KEPT_REPLICAS);
    }

    #[test]
    fn replicas_that_come_and_go_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let logs = ServiceLogs::new(folder.path().join("logs"));
        let write = |shim: &str, second: u8, text: &str| {
            let shim = folder.path().join(shim);
            fs::create_dir_all(&shim).unwrap();
            let mut file = fs::OpenOptions::new().append(true).create(true).open(shim.join("log")).unwrap();
            writeln!(file, "2026-01-01T00:00:{second:02}.000000000Z stdout F {text}").unwrap();
            shim
        };
        let mut following = Following::new(logs.clone(), "demo", "hello", Form::default());
        let read = |following: &mut Following| String::from_utf8(following.read().unwrap()).unwrap();
        let a = write("a", 1, "one");
        following.begin(UID_A.into(), a.clone(), KEPT_BYTES);
        assert_eq!(read(&mut following), "one\n");
        write("a", 2, "two");
        following.begin(UID_A.into(), a.clone(), KEPT_BYTES);
        assert_eq!(read(&mut following), "two\n");
        write("a", 3, "three");
        logs.keep(&replica("a", UID_A), &a).unwrap();
        fs::remove_dir_all(&a).unwrap();
        following.end(UID_A);
        assert_eq!(read(&mut following), "three\n", "its last line");

        // One that was not observed while it ran.
        let b = folder.path().join("b");
        following.begin(UID_B.into(), b.clone(), KEPT_BYTES);
        assert_eq!(read(&mut following), "");
        write("b", 4, "four");
        logs.keep(&replica("b", UID_B), &b).unwrap();
        fs::remove_dir_all(&b).unwrap();
        following.end_others(|_| false);
        assert_eq!(read(&mut following), "four\n");
        following.begin(UID_B.into(), b, KEPT_BYTES);
        assert_eq!(read(&mut following), "");
    }

    #[test]
    fn a_long_follow_remembers_a_bounded_number_of_replicas() {
        let mut finished = Recent::default();
        (0..3 * MAX_FINISHED).for_each(|n| finished.insert(n.to_string()));
        assert_eq!(finished.0.len(), MAX_FINISHED);
        assert!(finished.contains(&(3 * MAX_FINISHED - 1).to_string()) && !finished.contains("0"));
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(lines_from_end(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(lines_from_end(b"a\nb\nc\n", 1), b"c\n");
        assert_eq!(lines_from_end(b"a\nb\nc\n", 9), b"a\nb\nc\n");
        assert_eq!(lines_from_end(b"a\nb", 1), b"b");
        assert_eq!(lines_from_end(b"a\n", 0), b"");
        assert_eq!(lines_from_end(b"", 3), b"");
    }
}
