//! Reads the log of a shim.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// One entry of a log in the CRI format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriLine<'a> {
    /// When the shim read it.
    pub time: jiff::Timestamp,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// Whether the line goes on in the next entry of the stream.
    pub is_partial: bool,
    /// The text, without the line's end.
    pub text: &'a [u8],
}

/// Takes an entry (without the line's end) apart; `None` if it is none.
pub fn parse_cri_line(entry: &[u8]) -> Option<CriLine<'_>> {
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let is_partial = match parts.next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(CriLine { time, stream, is_partial, text: parts.next()? })
}

/// The log files of a shim's folder that exist, oldest first.
pub fn log_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = match path.file_name().and_then(|name| name.to_str()) {
            Some("log") => 0,
            Some(name) => match name.strip_prefix("log.").and_then(|number| number.parse::<u32>().ok()) {
                Some(number) => number,
                None => continue,
            },
            None => continue,
        };
        found.push((number, path));
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// The last `limit` bytes of the log, across rotated files.
pub fn tail(dir: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut left = limit;
    for path in log_files(dir)?.into_iter().rev() {
        let mut file = match File::open(path) {
            Ok(file) => file,
            // Rotated away between listing and opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        let wanted = size.min(left);
        file.seek(SeekFrom::Start(size - wanted))?;
        let mut piece = Vec::new();
        file.take(wanted).read_to_end(&mut piece)?;
        left -= piece.len() as u64;
        pieces.push(piece);
        if left == 0 {
            break;
        }
    }
    Ok(pieces.into_iter().rev().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_reaches_back_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("log.10", "old"),
            ("log.2", "abc"),
            ("log.1", "def"),
            ("log", "ghi"),
            ("log.x", "no"),
            ("spec.json", "no"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(tail(dir.path(), 5).unwrap(), b"efghi");
        assert_eq!(tail(dir.path(), 100).unwrap(), b"oldabcdefghi");
    }

    #[test]
    fn entries_are_taken_apart() {
        let line = parse_cri_line(b"2023-11-14T22:13:20.000000005Z stderr P a b  c").unwrap();
        assert_eq!((line.stream, line.is_partial, line.text), ("stderr", true, &b"a b  c"[..]));
        assert_eq!(line.time.as_nanosecond(), 1_700_000_000_000_000_005);
        assert_eq!(parse_cri_line(b"hello world"), None);
    }
}
