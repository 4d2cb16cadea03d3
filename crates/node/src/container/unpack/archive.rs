//! Reads the entries of an untrusted tar archive.
//!
//! The `tar` crate reads long names and extended headers into memory before its caller sees the entry, however long they are, so
//! only its headers are used here. Memory per entry is bounded by [`MAX_NAME`], [`MAX_PAX`] and [`MAX_SEGMENTS`].

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header, PaxExtensions};

/// The longest name or link target in bytes: the kernel's PATH_MAX.
pub(super) const MAX_NAME: u64 = 4096;
/// The largest extended header in bytes. Honest ones hold a name and some attributes.
pub(super) const MAX_PAX: u64 = 1 << 20;
/// Pieces of data in one sparse file. Higher costs memory, lower refuses honest disk images.
const MAX_SEGMENTS: usize = 1 << 16;
const BLOCK: u64 = 512;

/// The reason why an archive cannot be read further.
#[derive(Debug)]
pub(super) enum ArchiveError {
    /// Reading it failed: the transfer broke, or decompression did.
    Read(io::Error),
    /// It is not an archive, or one with something that is not allowed.
    Refused {
        /// The entry's name as far as it is known.
        name: Vec<u8>,
        problem: &'static str,
    },
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// One entry; its data follows in the [`Archive`].
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    /// Size of the file in bytes, holes included.
    pub(super) size: u64,
    /// Offset and length of each piece of data of a sparse file.
    pub(super) segments: Option<Vec<(u64, u64)>>,
}

/// An archive that is read from beginning to end.
pub(super) struct Archive<R> {
    reader: R,
    /// Data of the current entry that was not read yet.
    data: u64,
    /// The padding of its last block.
    padding: u64,
}

/// The values of extension headers for the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
}

fn refused(name: &[u8], problem: &'static str) -> ArchiveError {
    ArchiveError::Refused { name: name.to_owned(), problem }
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, data: 0, padding: 0 }
    }

    /// Returns the next entry. `count` is called for every header, those of extensions included, and may refuse to go on.
    pub(super) fn next(
        &mut self,
        mut count: impl FnMut() -> Result<(), ArchiveError>,
    ) -> Result<Option<Entry>, ArchiveError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else { return Ok(None) };
            count()?;
            let name = || header.path_bytes().into_owned();
            let number = |what: io::Result<u64>| what.map_err(|_| refused(&name(), "has a header with a bad number"));
            let size = extensions.size.unwrap_or(number(header.entry_size())?);
            self.data = size;
            self.padding = size.wrapping_neg() % BLOCK;
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                extensions.path = Some(self.long_name(&name(), "has a name of more than 4096 bytes")?);
            } else if kind.is_gnu_longlink() {
                extensions.link = Some(self.long_name(&name(), "is a link to a name of more than 4096 bytes")?);
            } else if kind.is_pax_local_extensions() {
                self.pax(&name(), &mut extensions)?;
            } else if !kind.is_pax_global_extensions() {
                return self.entry(&header, kind, size, extensions).map(Some);
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, ArchiveError> {
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let bad = |_| refused(&path, "has a header with a bad number");
        let link = extensions.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let mut entry = Entry {
            kind,
            link,
            uid: extensions.uid.map_or_else(|| header.uid(), Ok).map_err(bad)?,
            gid: extensions.gid.map_or_else(|| header.gid(), Ok).map_err(bad)?,
            mode: header.mode().map_err(bad)?,
            mtime: match extensions.mtime {
                Some(mtime) => mtime,
                None => i64::try_from(header.mtime().map_err(bad)?).unwrap_or(0),
            },
            size,
            segments: None,
            path: Vec::new(),
        };
        if kind.is_gnu_sparse() {
            let (size, segments) = self.sparse(header, size, &path)?;
            entry.size = size;
            entry.segments = Some(segments);
        }
        entry.path = path;
        Ok(entry)
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum is that of the header with blanks in its place.
        let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(refused(&[], "cannot be read: the checksum of its header is wrong, so this is no tar archive"));
        }
        Ok(Some(header))
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let left = self.data.saturating_add(self.padding);
        (self.data, self.padding) = (0, 0);
        match io::copy(&mut (&mut self.reader).take(left), &mut io::sink())? {
            skipped if skipped == left => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// The whole data of the current entry, which must not be longer than `limit`.
    fn small(&mut self, limit: u64, name: &[u8], problem: &'static str) -> Result<Vec<u8>, ArchiveError> {
        if self.data > limit {
            return Err(refused(name, problem));
        }
        let mut bytes = vec![0; usize::try_from(self.data).unwrap_or(usize::MAX)];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn long_name(&mut self, name: &[u8], problem: &'static str) -> Result<Vec<u8>, ArchiveError> {
        // A NUL byte ends it.
        let mut bytes = self.small(MAX_NAME + 1, name, problem)?;
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        Ok(bytes)
    }

    fn pax(&mut self, name: &[u8], extensions: &mut Extensions) -> Result<(), ArchiveError> {
        let bytes = self.small(MAX_PAX, name, "has an extended header of more than 1 MiB")?;
        let malformed = || refused(name, "has an extended header that is malformed");
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension.map_err(|_| malformed())?;
            let value = extension.value_bytes();
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed);
            match extension.key_bytes() {
                b"path" => extensions.path = Some(value.to_owned()),
                b"linkpath" => extensions.link = Some(value.to_owned()),
                b"size" => extensions.size = Some(number()?),
                b"uid" => extensions.uid = Some(number()?),
                b"gid" => extensions.gid = Some(number()?),
                b"mtime" => {
                    // Fractions of a second are not kept.
                    let text = std::str::from_utf8(value).map_err(|_| malformed())?;
                    let whole = text.split('.').next().unwrap_or_default();
                    extensions.mtime = Some(whole.parse().map_err(|_| malformed())?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refused(
                        name,
                        "is a sparse file in the format of POSIX: write the archive without --sparse, or in GNU's format",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Size and pieces of data of a sparse file in GNU's old format.
    fn sparse(&mut self, header: &Header, stored: u64, path: &[u8]) -> Result<(u64, Vec<(u64, u64)>), ArchiveError> {
        let malformed = || refused(path, "is a sparse file whose map is malformed");
        let gnu = header.as_gnu().ok_or_else(malformed)?;
        let mut segments = Vec::new();
        let mut add = |pieces: &[tar::GnuSparseHeader]| {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                let segment = (piece.offset().map_err(|_| malformed())?, piece.length().map_err(|_| malformed())?);
                if segments.len() == MAX_SEGMENTS {
                    return Err(refused(path, "is a sparse file of more than 65536 pieces"));
                }
                segments.push(segment);
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut more = GnuExtSparseHeader::new();
            self.reader.read_exact(more.as_mut_bytes())?;
            add(more.sparse())?;
            is_extended = more.is_extended();
        }
        let size = gnu.real_size().map_err(|_| malformed())?;
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, length) in &segments {
            if *offset < end {
                return Err(malformed());
            }
            end = offset.checked_add(*length).filter(|end| *end <= size).ok_or_else(malformed)?;
            sum += length;
        }
        if sum == stored { Ok((size, segments)) } else { Err(malformed()) }
    }
}

/// The data of the current entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data -= count as u64;
        Ok(count)
    }
}
