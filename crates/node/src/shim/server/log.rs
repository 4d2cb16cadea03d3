//! The rotated log. Nothing here returns an error: output that cannot be written is counted and forgotten, because a full disk
//! must not stop a workload.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::shim::spec::{LogFormat, LogLimits};

/// A longer line is split into entries marked `P`; the figure of containerd and CRI-O.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// The standard stream that bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub(super) struct LogWriter {
    dir: PathBuf,
    name: &'static str,
    limits: LogLimits,
    file: Option<File>,
    size: u64,
    dropped: u64,
    unfinished: [Vec<u8>; 2],
}

impl LogWriter {
    pub(super) fn new(dir: PathBuf, name: &'static str, limits: LogLimits) -> Self {
        let mut writer = Self { dir, name, limits, file: None, size: 0, dropped: 0, unfinished: Default::default() };
        writer.open(false);
        writer
    }

    /// Bytes of output that are not in the log.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        match self.limits.format {
            LogFormat::Raw => {
                let piece = usize::try_from(self.limits.max_bytes.max(1)).unwrap_or(usize::MAX);
                for chunk in bytes.chunks(piece) {
                    self.append(chunk);
                }
            }
            LogFormat::Cri => self.write_lines(stream, bytes, now),
        }
    }

    /// Writes lines that were never finished.
    pub(super) fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.unfinished[stream as usize]);
            if !rest.is_empty() {
                self.append(&entry(stream, b'F', &rest, now));
            }
        }
    }

    fn write_lines(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        let mut pending = Vec::with_capacity(bytes.len() + 256);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = &mut self.unfinished[stream as usize];
            line.extend_from_slice(part);
            let is_whole = line.last() == Some(&b'\n');
            if is_whole {
                line.pop();
            }
            let line = if is_whole || line.len() >= MAX_LINE_BYTES { std::mem::take(line) } else { continue };
            let mut pieces = line.chunks(MAX_LINE_BYTES).peekable();
            if line.is_empty() {
                self.collect(&mut pending, entry(stream, b'F', b"", now));
            }
            while let Some(piece) = pieces.next() {
                let is_last = is_whole && pieces.peek().is_none();
                self.collect(&mut pending, entry(stream, if is_last { b'F' } else { b'P' }, piece, now));
            }
        }
        self.append(&pending);
    }

    /// Gathers entries into one write, as far as they fit into the current file together.
    fn collect(&mut self, pending: &mut Vec<u8>, entry: Vec<u8>) {
        if self.size + (pending.len() + entry.len()) as u64 > self.limits.max_bytes {
            self.append(pending);
            pending.clear();
        }
        pending.extend_from_slice(&entry);
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.limits.max_bytes {
            self.rotate();
        }
        if self.file.is_none() {
            self.open(false);
        }
        let written = self.file.as_mut().is_some_and(|file| file.write_all(bytes).is_ok());
        if written {
            self.size += bytes.len() as u64;
        } else {
            self.dropped += bytes.len() as u64;
            // A torn entry would corrupt the one after it.
            if let Some(file) = &self.file {
                let _ = file.set_len(self.size);
            }
        }
    }

    fn rotate(&mut self) {
        let path = |number: u32| match number {
            0 => self.dir.join(self.name),
            _ => self.dir.join(format!("{}.{number}", self.name)),
        };
        let last = self.limits.max_files.max(1) - 1;
        let _ = std::fs::remove_file(path(last));
        for number in (0..last).rev() {
            let _ = std::fs::rename(path(number), path(number + 1));
        }
        self.open(true);
    }

    fn open(&mut self, is_new: bool) {
        let path = self.dir.join(self.name);
        // Opened by root once, in a folder that the shim's user can write to.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path);
        self.file = opened.ok();
        if is_new && let Some(file) = &self.file {
            // Only reached with old content when the rename before failed: staying within the limit comes first.
            let _ = file.set_len(0);
        }
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    }
}

fn entry(stream: Stream, tag: u8, line: &[u8], now: Timestamp) -> Vec<u8> {
    let mut entry = format!("{now:.9} {} {} ", stream.name(), char::from(tag)).into_bytes();
    entry.extend_from_slice(line);
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(format: LogFormat, max_bytes: u64, max_files: u32) -> LogLimits {
        LogLimits { format, max_bytes, max_files }
    }

    fn now() -> Timestamp {
        Timestamp::new(1_700_000_000, 5).unwrap()
    }

    #[test]
    fn lines_are_written_as_container_runtimes_write_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path().into(), "log", limits(LogFormat::Cri, 1 << 20, 2));
        log.write(Stream::Stdout, b"one\ntw", now());
        log.write(Stream::Stderr, b"bad\n\n", now());
        log.write(Stream::Stdout, b"o\nthree", now());
        log.finish(now());
        let time = "2023-11-14T22:13:20.000000005Z";
        let expected = format!(
            "{time} stdout F one\n{time} stderr F bad\n{time} stderr F \n{time} stdout F two\n{time} stdout F three\n"
        );
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), expected);
    }

    #[test]
    fn a_long_line_is_split_and_marked() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path().into(), "log", limits(LogFormat::Cri, 1 << 20, 2));
        let mut line = vec![b'x'; MAX_LINE_BYTES + 10];
        line.push(b'\n');
        for part in line.chunks(1000) {
            log.write(Stream::Stdout, part, now());
        }
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let tags: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, ["P", "F"]);
        let body: usize = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().len()).sum();
        assert_eq!(body, MAX_LINE_BYTES + 10);
    }

    #[test]
    fn the_log_stays_within_its_limits_and_keeps_the_newest() {
        for format in [LogFormat::Cri, LogFormat::Raw] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = LogWriter::new(dir.path().into(), "log", limits(format, 1000, 3));
            for number in 0..500 {
                log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), now());
            }
            let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap()).collect();
            assert_eq!(files.len(), 3);
            assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 1000));
            let newest = std::fs::read_to_string(dir.path().join("log")).unwrap();
            assert!(newest.ends_with("line 499\n"), "{newest}");
            assert_eq!(log.dropped(), 0);
        }
    }

    #[test]
    fn one_file_only_is_possible() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path().into(), "log", limits(LogFormat::Raw, 10, 1));
        for _ in 0..5 {
            log.write(Stream::Stdout, b"123456", now());
        }
        assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), b"123456");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn records_that_cannot_be_written_are_counted_and_the_log_continues_later() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("log")).unwrap();
        let mut log = LogWriter::new(dir.path().into(), "log", limits(LogFormat::Raw, 1000, 2));
        log.write(Stream::Stdout, b"12345", now());
        assert_eq!(log.dropped(), 5);
        std::fs::remove_file(dir.path().join("log")).unwrap();
        log.write(Stream::Stdout, b"678", now());
        assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), b"678");
    }
}
