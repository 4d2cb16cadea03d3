//! Reads a shim's log as it grows, across rotation, also after the log was removed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::shim::log_files;

/// A position in a shim's log: everything before it has been read. It holds the file open, so the last output can still be
/// read when the folder has been removed.
#[derive(Debug)]
pub struct LogCursor {
    dir: PathBuf,
    /// How much of the existing log is wanted at first, rounded up to whole files.
    first_bytes: u64,
    current: Option<Current>,
    /// The beginning of an entry whose end is not written yet.
    begun: Vec<u8>,
}

#[derive(Debug)]
struct Current {
    file: File,
    inode: u64,
}

impl LogCursor {
    /// A cursor before the last `first_bytes` of the log in `dir` (rounded up to whole files).
    pub fn new(dir: PathBuf, first_bytes: u64) -> Self {
        Self { dir, first_bytes, current: None, begun: Vec::new() }
    }

    /// Whether a log was found at all.
    pub fn is_begun(&self) -> bool {
        self.current.is_some()
    }

    /// Whole entries written since the last call.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        self.read_current()?;
        while let Some(next) = self.next()? {
            // The older file may have got its last entries between being read and being renamed.
            self.read_current()?;
            self.current = Some(next);
            self.read_current()?;
        }
        let end = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        let rest = self.begun.split_off(end);
        Ok(std::mem::replace(&mut self.begun, rest))
    }

    fn read_current(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        // A shim whose disk is full takes a torn entry back.
        let length = current.file.metadata()?.len();
        if current.file.stream_position()? > length {
            current.file.seek(SeekFrom::Start(length))?;
            self.begun.clear();
        }
        current.file.read_to_end(&mut self.begun).map(|_| ())
    }

    /// The file after the current one, if it exists by now.
    fn next(&self) -> io::Result<Option<Current>> {
        let mut seen = HashSet::new();
        let mut files = Vec::new();
        let paths = match log_files(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            paths => paths?,
        };
        for path in paths {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let inode = file.metadata()?.ino();
            // Renamed while we looked: the same file under two names.
            if seen.insert(inode) {
                files.push(Current { file, inode });
            }
        }
        let place = match &self.current {
            // Renamed away beyond the last number: go on with the oldest that is left.
            Some(current) => files.iter().position(|file| file.inode == current.inode).map_or(0, |place| place + 1),
            None => first_wanted(&files, self.first_bytes)?,
        };
        Ok(files.into_iter().nth(place))
    }
}

fn first_wanted(files: &[Current], bytes: u64) -> io::Result<usize> {
    let mut found = 0;
    for (place, file) in files.iter().enumerate().rev() {
        if found >= bytes {
            return Ok(place + 1);
        }
        found += file.file.metadata()?.len();
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn cursor(&self, bytes: u64) -> LogCursor {
            LogCursor::new(self.0.path().join("shim"), bytes)
        }

        fn write(&self, text: &str) {
            let folder = self.0.path().join("shim");
            fs::create_dir_all(&folder).unwrap();
            let file = fs::OpenOptions::new().append(true).create(true).open(folder.join("log"));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self) {
            let path = |name: &str| self.0.path().join("shim").join(name);
            let _ = fs::rename(path("log.1"), path("log.2"));
            fs::rename(path("log"), path("log.1")).unwrap();
        }
    }

    fn read(cursor: &mut LogCursor) -> String {
        String::from_utf8(cursor.read().unwrap()).unwrap()
    }

    #[test]
    fn only_whole_entries_and_each_once() {
        let log = Log::new();
        let mut cursor = log.cursor(1000);
        assert_eq!(read(&mut cursor), "", "the log is empty so far");
        assert!(!cursor.is_begun());
        log.write("a\nb");
        assert_eq!(read(&mut cursor), "a\n");
        assert_eq!(read(&mut cursor), "");
        log.write("c\nd\n");
        assert_eq!(read(&mut cursor), "bc\nd\n");
    }

    #[test]
    fn rotation_loses_nothing() {
        let log = Log::new();
        let mut cursor = log.cursor(1000);
        log.write("a\n");
        assert_eq!(read(&mut cursor), "a\n");
        log.write("b\n");
        log.rotate();
        log.write("c\n");
        log.rotate();
        log.write("d\n");
        assert_eq!(read(&mut cursor), "b\nc\nd\n");
        for text in ["e\n", "f\n", "g\n", "h\n"] {
            log.rotate();
            log.write(text);
        }
        assert_eq!(read(&mut cursor), "f\ng\nh\n", "e was rotated away before anybody looked");
    }

    #[test]
    fn it_begins_near_the_end_and_ends_after_the_folder() {
        let log = Log::new();
        log.write("old\n");
        log.rotate();
        log.write("older than new\n");
        log.rotate();
        log.write("new\n");
        let mut cursor = log.cursor(5);
        assert_eq!(read(&mut cursor), "older than new\nnew\n");
        log.write("last\n");
        fs::remove_dir_all(log.0.path().join("shim")).unwrap();
        assert_eq!(read(&mut cursor), "last\n");
        assert_eq!(read(&mut cursor), "");
    }

    #[test]
    fn a_torn_entry_that_was_taken_back_is_forgotten() {
        let log = Log::new();
        let mut cursor = log.cursor(1000);
        log.write("a\nto");
        assert_eq!(read(&mut cursor), "a\n");
        let file = fs::OpenOptions::new().write(true).open(log.0.path().join("shim/log")).unwrap();
        file.set_len(2).unwrap();
        assert_eq!(read(&mut cursor), "");
        log.write("b\n");
        assert_eq!(read(&mut cursor), "b\n");
    }
}
