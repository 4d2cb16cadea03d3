//! The mapping of keys, values and revisions to etcd.
//!
//! ```text
//! <prefix>/data/<key>   the value and, after it, a CRC-32 of key and value
//! <prefix>/origin       written once, first of all; what it was created by is this store's revision `base`
//! <prefix>/owner        who uses the store; see `claim`
//! ```
//! An etcd may have been in use before, and so may a cloud that migrates to it. The origin relates the two counters: contract
//! revision = etcd's revision - the origin's creation + base. A new cloud has base 0; a migrated one has its last revision as
//! base, so that no revision that a client has seen is reused.

use bytes::{BufMut, Bytes, BytesMut};

use super::proto;
use crate::contract::{KeyRange, KeyValue, LeaseId, Result, Revision};
use crate::error::StoreError;

/// The prefix of an origin, which names its format.
const FORMAT: &str = "evroc-store/1 base ";

/// The translation between contract and etcd.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    data: Bytes,
    /// The etcd revision that created the origin.
    created: i64,
    base: u64,
}

/// Returns the key of the origin.
pub(super) fn origin_key(prefix: &str) -> Bytes {
    format!("{prefix}/origin").into()
}

/// Encodes the origin.
pub(super) fn origin_value(base: Revision) -> Bytes {
    format!("{FORMAT}{base}").into()
}

impl Keys {
    /// Decodes the origin. `None` if it was not written by this program.
    pub fn new(prefix: &str, origin: &proto::KeyValue) -> Option<Self> {
        let base = std::str::from_utf8(&origin.value).ok()?.strip_prefix(FORMAT)?.parse().ok()?;
        Some(Keys { data: format!("{prefix}/data/").into(), created: origin.create_revision, base })
    }

    /// Returns the contract revision at which the store was created.
    pub fn base(&self) -> Revision {
        Revision(self.base)
    }

    /// Returns the etcd revision at which the store was created.
    pub fn created(&self) -> i64 {
        self.created
    }

    pub fn revision(&self, etcd: i64) -> Revision {
        Revision(self.base + u64::try_from(etcd - self.created).unwrap_or(0))
    }

    /// Converts an etcd revision; `None` if it is older than this store.
    pub fn etcd_revision(&self, revision: Revision) -> Option<i64> {
        let since = i64::try_from(revision.0.checked_sub(self.base)?).ok()?;
        self.created.checked_add(since)
    }

    pub fn key(&self, key: &[u8]) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.data.len() + key.len());
        whole.extend_from_slice(&self.data);
        whole.extend_from_slice(key);
        whole.freeze()
    }

    /// Returns start and end of a range; `None` for an empty range, which etcd would interpret differently.
    pub fn range(&self, range: &KeyRange) -> Option<(Bytes, Bytes)> {
        let start = self.key(&range.start);
        let end = match &range.end {
            Some(end) => self.key(end),
            None => KeyRange::prefix(self.data.clone()).end?,
        };
        (start < end).then_some((start, end))
    }

    /// Returns the contract's key; `None` for keys of others.
    pub fn strip(&self, whole: &Bytes) -> Option<Bytes> {
        whole.starts_with(&self.data).then(|| whole.slice(self.data.len()..))
    }

    /// Encodes a value with its checksum.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Bytes {
        let mut sealed = BytesMut::with_capacity(value.len() + 4);
        sealed.extend_from_slice(value);
        sealed.put_u32(checksum(key, value));
        sealed.freeze()
    }

    /// Decodes the value of `key` and verifies its checksum.
    pub fn open(&self, key: &Bytes, sealed: &Bytes, revision: Revision) -> Result<Bytes> {
        let damaged = |detail: &str| StoreError::Damaged { key: key.clone(), revision, detail: detail.to_owned() };
        let length = sealed.len().checked_sub(4).ok_or_else(|| damaged("it is shorter than its checksum"))?;
        let value = sealed.slice(..length);
        if sealed[length..] != checksum(key, &value).to_be_bytes() {
            return Err(damaged("checksum of the value does not match"));
        }
        Ok(value)
    }

    /// Converts a key and value of etcd to the contract's form.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn item(&self, found: &proto::KeyValue) -> Result<KeyValue> {
        let mod_revision = self.revision(found.mod_revision);
        let Some(key) = self.strip(&found.key) else {
            return Err(StoreError::Damaged {
                key: found.key.clone(),
                revision: mod_revision,
                detail: "the key is outside of the requested range".to_owned(),
            });
        };
        let value = self.open(&key, &found.value, mod_revision)?;
        Ok(KeyValue {
            key,
            value,
            create_revision: self.revision(found.create_revision),
            mod_revision,
            lease: (found.lease != 0).then_some(LeaseId(found.lease as u64)),
        })
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(created: i64, base: u64) -> Keys {
        let origin =
            proto::KeyValue { create_revision: created, value: origin_value(Revision(base)), ..Default::default() };
        Keys::new("/x", &origin).expect("an origin")
    }

    #[test]
    fn revisions_are_translated() {
        let keys = keys(7, 100);
        assert_eq!(keys.revision(7), Revision(100));
        assert_eq!(keys.revision(9), Revision(102));
        assert_eq!(keys.etcd_revision(Revision(102)), Some(9));
        assert_eq!(keys.etcd_revision(Revision(99)), None);
        let foreign = proto::KeyValue { value: "evroc-store/2 base 1".into(), ..Default::default() };
        assert!(Keys::new("/x", &foreign).is_none());
    }

    #[test]
    fn a_flipped_bit_is_damage() {
        let (keys, key) = (keys(2, 0), Bytes::from_static(b"k"));
        let sealed = keys.seal(&key, b"value");
        assert_eq!(keys.open(&key, &sealed, Revision(1)).expect("sound"), "value");
        for position in 0..sealed.len() {
            let mut hurt = sealed.to_vec();
            hurt[position] ^= 1;
            assert!(keys.open(&key, &hurt.into(), Revision(1)).is_err(), "{position}");
        }
        assert!(keys.open(&Bytes::from_static(b"l"), &sealed, Revision(1)).is_err(), "another key's value");
        assert!(keys.open(&key, &Bytes::from_static(b"abc"), Revision(1)).is_err());
    }

    #[test]
    fn ranges_stay_in_the_store() {
        let keys = keys(2, 0);
        let range = |range| keys.range(&range).map(|(start, end)| (start.to_vec(), end.to_vec()));
        assert_eq!(range(KeyRange::all()), Some((b"/x/data/".to_vec(), b"/x/data0".to_vec())));
        assert_eq!(range(KeyRange::single("a")), Some((b"/x/data/a".to_vec(), b"/x/data/a\0".to_vec())));
        assert_eq!(range(KeyRange::new("b", "a")), None);
        assert_eq!(keys.strip(&Bytes::from_static(b"/x/data/a")).as_deref(), Some(&b"a"[..]));
        assert_eq!(keys.strip(&Bytes::from_static(b"/x/origin")), None);
    }
}
