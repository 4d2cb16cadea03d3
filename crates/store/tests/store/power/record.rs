//! The record: every system call by which a process changed its store's files, in order, as the kernel saw it (`strace`).
//!
//! The store is not changed for it and cannot know: the judged program is the one that users run. Memory that is shared
//! with the log's index (`-shm`) and the lock are no part of the state.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evroc_tests::process;

use super::workload::{ACK, FOLDER};

/// The calls and output of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A file came to be, empty.
    Create(String),
    /// Bytes were written at an offset.
    Write(String, usize, Vec<u8>),
    /// A file was cut or extended.
    Truncate(String, usize),
    /// A file was removed.
    Remove(String),
    /// A file's content was synced, and that succeeded.
    Sync(String),
    /// The folder was synced: which files exist.
    SyncFolder,
    /// A transaction was acknowledged.
    Ack(u64, Vec<String>),
}

/// Longer than the workload may take under the recorder.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the workload in `folder` and returns what it did. The sync of that number fails, if one is named: of each thread's
/// syncs, as strace counts, so that it is the first store's, or the second's if that has more.
pub fn record(folder: &Path, failing_sync: Option<usize>) -> Vec<Event> {
    let trace = folder.with_extension("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "16777216", "-e", "signal=none", "-e"]);
    strace.arg("trace=openat,write,pwrite64,ftruncate,fsync,fdatasync,unlink,rename");
    if let Some(number) = failing_sync {
        strace.arg("-e").arg(format!("inject=fsync,fdatasync:error=EIO:when={number}"));
    }
    strace.arg("-o").arg(&trace).arg(std::env::current_exe().expect("own path"));
    strace.args(["--exact", "power::workload::work", "--nocapture"]).env(FOLDER, folder);
    let output = process::run(&mut strace, PATIENCE).expect("strace starts: it is one of the packages that tests need");
    assert!(!output.timed_out, "{}", output.both);
    assert!(output.ok() || failing_sync.is_some(), "{}: {}", output.ending(), output.both);
    let text = std::fs::read_to_string(&trace).expect("the trace");
    // Where it has failed, the process must not have come to its end.
    assert_eq!(text.contains("(INJECTED)"), !output.ok(), "{}: {}", output.ending(), output.both);
    parse(&text, folder.to_str().expect("a path in UTF-8"))
}

/// Reads strace's lines: `PID call(arguments) = result`, or in two parts when another thread came between.
pub fn parse(text: &str, folder: &str) -> Vec<Event> {
    let mut parser = Parser { folder, existing: Vec::new(), events: Vec::new(), open: Vec::new() };
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            let (call, arguments) = begun.split_once('(').unwrap_or((begun, ""));
            // Written data may be on disk as soon as the call has begun; synced data, when it has ended.
            if matches!(call, "fsync" | "fdatasync") {
                parser.open.push((pid.to_owned(), arguments.to_owned()));
            } else {
                parser.call(call, arguments, None);
            }
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            if let Some(position) = parser.open.iter().position(|(waiting, _)| waiting == pid)
                && (resumed.starts_with("fsync") || resumed.starts_with("fdatasync"))
            {
                let (_, arguments) = parser.open.swap_remove(position);
                parser.call("fsync", &arguments, Some(resumed));
            }
        } else if let Some((call, arguments)) = rest.split_once('(') {
            parser.call(call, arguments, Some(rest));
        }
    }
    parser.events
}

struct Parser<'a> {
    folder: &'a str,
    existing: Vec<String>,
    events: Vec<Event>,
    open: Vec<(String, String)>,
}

impl Parser<'_> {
    fn call(&mut self, call: &str, arguments: &str, result: Option<&str>) {
        let event = match call {
            "openat" => {
                if !arguments.contains("O_CREAT") {
                    return;
                }
                let Some(file) = strings(arguments).nth(1).and_then(|path| self.file(&path)) else { return };
                if self.existing.contains(&file) {
                    return;
                }
                self.existing.push(file.clone());
                Event::Create(file)
            }
            "pwrite64" => {
                let mut strings = strings(arguments);
                let Some(file) = strings.next().and_then(|path| self.file(&path)) else { return };
                let data = strings.next().expect("the written bytes");
                let numbers = arguments.rsplit_once('"').map_or("", |(_, numbers)| numbers);
                let offset = numbers.split([',', ')']).filter_map(|word| word.trim().parse().ok()).nth(1);
                Event::Write(file, offset.expect("where it is written"), data)
            }
            "write" => {
                let Some(data) = strings(arguments).nth(1) else { return };
                let text = String::from_utf8_lossy(&data);
                let Some(told) = text.strip_prefix(ACK) else { return };
                let mut words = told.split_whitespace();
                let revision = words.next().and_then(|word| word.parse().ok()).expect("a revision");
                Event::Ack(revision, words.map(str::to_owned).collect())
            }
            "ftruncate" => {
                let Some(file) = strings(arguments).next().and_then(|path| self.file(&path)) else { return };
                let size = arguments.rsplit_once(", ").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
                Event::Truncate(file, size.expect("a size"))
            }
            "unlink" => {
                let Some(file) = strings(arguments).next().and_then(|path| self.file(&path)) else { return };
                self.existing.retain(|known| *known != file);
                Event::Remove(file)
            }
            "fsync" | "fdatasync" => {
                if !result.is_some_and(|line| line.trim_end().ends_with("= 0")) {
                    return;
                }
                let Some(path) = strings(arguments).next() else { return };
                match self.file(&path) {
                    Some(file) => Event::Sync(file),
                    None if path == self.folder.as_bytes() => Event::SyncFolder,
                    None => return,
                }
            }
            "rename" => panic!("the store renames: the model has to learn that"),
            _ => return,
        };
        self.events.push(event);
    }

    /// The name of a file of the store that is part of its state.
    fn file(&self, path: &[u8]) -> Option<String> {
        let path = std::str::from_utf8(path).ok()?;
        let name = path.strip_prefix(self.folder)?.strip_prefix('/')?;
        (name != "lock" && name != "store.db-shm").then(|| name.to_owned())
    }
}

/// All paths (`<…>`) and strings (`"…"`) of a call, which strace writes byte by byte in hexadecimal.
fn strings(arguments: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut rest = arguments;
    std::iter::from_fn(move || {
        let from = rest.find(['<', '"'])?;
        let end = if rest.as_bytes()[from] == b'<' { '>' } else { '"' };
        let text = &rest[from + 1..];
        let to = text.find(end)?;
        rest = &text[to + 1..];
        Some(text[..to].split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect())
    })
}

#[test]
fn a_trace_is_read() {
    let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let (a, folder, words) = (hex("/s/a"), hex("/s"), hex("acknowledged:7 k l\n"));
    let trace = format!(
        "1 openat(AT_FDCWD<{0}>, \"{1}\", O_RDWR|O_CREAT, 0600) = 3<{1}>\n\
         1 pwrite64(3<{1}>, \"\\x61\\x62\", 2, 512 <unfinished ...>\n\
         2 fsync(3<{1}> <unfinished ...>\n\
         1 <... pwrite64 resumed>) = 2\n\
         2 <... fsync resumed>) = 0\n\
         1 fsync(3<{1}>) = -1 EIO (Input/output error) (INJECTED)\n\
         1 fdatasync(4<{2}>) = 0\n\
         1 write(2</dev/null>, \"{3}\", 19) = 19\n\
         1 ftruncate(3<{1}>, 4096) = 0\n\
         1 unlink(\"{1}\") = 0\n",
        hex("/x"),
        a,
        folder,
        words
    );
    let a = || "a".to_owned();
    let expected = [
        Event::Create(a()),
        Event::Write(a(), 512, b"ab".to_vec()),
        Event::Sync(a()),
        Event::SyncFolder,
        Event::Ack(7, vec!["k".into(), "l".into()]),
        Event::Truncate(a(), 4096),
        Event::Remove(a()),
    ];
    assert_eq!(parse(&trace, "/s"), expected);
}
