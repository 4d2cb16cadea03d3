//! The data of a public key: fields one after the other, most of them behind their length in four bytes (RFC 4253, 5656, 8709, and
//! OpenSSH's PROTOCOL.certkeys and PROTOCOL.u2f). All of them are walked, so that a key that was cut short anywhere is found.

use Field::{Bytes, Number, Point, Text, U32, U64};

#[derive(Clone, Copy, Debug)]
enum Field {
    /// Any bytes.
    Text,
    /// As many bytes.
    Bytes(usize),
    /// A positive number.
    Number,
    /// The name of a curve, and a point on it that takes as many bytes.
    Point(&'static str, usize),
    /// Numbers without a length.
    U32,
    U64,
}

/// The fields after the name of the type in a plain key.
const KEYS: [(&str, &[Field]); 8] = [
    ("ssh-ed25519", &[Bytes(32)]),
    ("ssh-rsa", &[Number, Number]),
    ("ssh-dss", &[Number, Number, Number, Number]),
    ("ecdsa-sha2-nistp256", &[Point("nistp256", 65)]),
    ("ecdsa-sha2-nistp384", &[Point("nistp384", 97)]),
    ("ecdsa-sha2-nistp521", &[Point("nistp521", 133)]),
    ("sk-ssh-ed25519@openssh.com", &[Bytes(32), Text]),
    ("sk-ecdsa-sha2-nistp256@openssh.com", &[Point("nistp256", 65), Text]),
];
/// A certificate has a nonce before the fields of the key, and these behind them: serial, type, id, principals, two times, critical
/// options, extensions, reserved, the key that signed it, its signature.
const CERTIFIED: [Field; 11] = [U64, U32, Text, Text, U64, U64, Text, Text, Text, Text, Text];
const CERTIFICATE: &str = "-cert-v01@openssh.com";

/// Whether the type is one whose fields are known here.
pub(super) fn is_known(kind: &str) -> bool {
    fields(kind).is_some()
}

/// Checks that the data is that of a whole key of the type. Of a type that is not known here, it is at least one field behind the name.
pub(super) fn check(kind: &str, data: &[u8]) -> Result<(), String> {
    let mut reader = Reader { rest: data, read: 0 };
    let name = reader.text()?;
    if name != kind.as_bytes() {
        return Err(format!("the data of a key of type \"{}\"", String::from_utf8_lossy(name).escape_default()));
    }
    match fields(kind) {
        Some(fields) => fields.into_iter().try_for_each(|field| reader.field(field))?,
        None => {
            reader.text()?;
            while !reader.rest.is_empty() {
                reader.text()?;
            }
        }
    }
    match reader.rest.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes behind its end")),
    }
}

fn fields(kind: &str) -> Option<Vec<Field>> {
    let plain = |name: &str| KEYS.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields);
    let Some(certified) = kind.strip_suffix(CERTIFICATE) else { return plain(kind).map(<[Field]>::to_vec) };
    let fields = plain(certified).or_else(|| plain(&format!("{certified}@openssh.com")))?;
    Some([&[Text], fields, &CERTIFIED].concat())
}

struct Reader<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Reader<'a> {
    fn field(&mut self, field: Field) -> Result<(), String> {
        match field {
            Text => self.text().map(drop),
            Bytes(length) => self.bytes(length).map(drop),
            Number => match self.text()? {
                [first, ..] if *first < 0x80 => Ok(()),
                _ => Err(format!("no positive number in field {}", self.read)),
            },
            Point(curve, length) => {
                let found = self.text()?;
                if found != curve.as_bytes() {
                    return Err(format!("the curve \"{}\"", String::from_utf8_lossy(found).escape_default()));
                }
                match self.bytes(length)? {
                    [4, ..] => Ok(()),
                    _ => Err(format!("no uncompressed point in field {}", self.read)),
                }
            }
            U32 => self.take(4).map(drop),
            U64 => self.take(8).map(drop),
        }
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let bytes = self.text()?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(format!("{} instead of {length} bytes in field {}", bytes.len(), self.read))
        }
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let length = self.take(4)?;
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.read -= 1;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        self.read += 1;
        let (field, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| format!("an end of its data within field {}", self.read))?;
        self.rest = rest;
        Ok(field)
    }
}
