//! The rows of the database: contents, verification, and all statements on them.
//!
//! `head_crc` covers everything but the value, so that the index can be rebuilt without reading values; `value_crc` covers the
//! value too. The table `state` has the number of rows and a sum of their ids, so that missing rows are detected at open.

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::index::RowId;
use crate::contract::{KeyValue, LeaseId, Revision};
use crate::error::StoreError;

/// A row without its value.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub row: RowId,
    pub key: Bytes,
    /// `None` marks a delete.
    pub create_revision: Option<Revision>,
    /// The row with the key's state before, if it existed.
    pub previous: Option<RowId>,
    pub lease: Option<LeaseId>,
}

impl Head {
    fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        for number in [
            self.row.0,
            self.create_revision.map_or(0, |revision| revision.0),
            self.previous.map_or(0, |row| row.0),
            self.lease.map_or(0, |lease| lease.0),
        ] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&self.key);
        hasher
    }

    fn damaged(&self, detail: impl Into<String>) -> StoreError {
        StoreError::Damaged { key: self.key.clone(), revision: self.row.revision(), detail: detail.into() }
    }
}

const COLUMNS: &str = "id, create_revision, previous, lease, head_crc, value_crc, key";

/// Reads everything but the value, and verifies it.
pub(super) fn decode_head(row: &Row<'_>) -> Result<Head, StoreError> {
    let read = || -> rusqlite::Result<(Head, u32)> {
        let number = |column: usize| row.get::<_, i64>(column).map(|number| number as u64);
        Ok((
            Head {
                row: RowId(number(0)?),
                create_revision: Some(number(1)?).filter(|n| *n != 0).map(Revision),
                previous: Some(number(2)?).filter(|n| *n != 0).map(RowId),
                lease: Some(number(3)?).filter(|n| *n != 0).map(LeaseId),
                key: Bytes::from(row.get::<_, Vec<u8>>(6)?),
            },
            row.get(4)?,
        ))
    };
    let (head, crc) = read().map_err(|source| damaged_row(None, source))?;
    if head.hasher().finalize() != crc {
        return Err(head.damaged("checksum of key and revisions does not match"));
    }
    Ok(head)
}

/// Reads the value of a row selected with [`select_from`], and verifies it. `None` for a delete.
pub(super) fn decode_value(row: &Row<'_>, head: &Head) -> Result<Option<Bytes>, StoreError> {
    let read = || -> rusqlite::Result<(Option<Vec<u8>>, u32)> { Ok((row.get(7)?, row.get(5)?)) };
    let (value, crc) = read().map_err(|source| head.damaged(source.to_string()))?;
    let mut hasher = head.hasher();
    hasher.update(value.as_deref().unwrap_or_default());
    if hasher.finalize() != crc {
        return Err(head.damaged("checksum of the value does not match"));
    }
    if value.is_some() != head.create_revision.is_some() {
        return Err(head.damaged("a delete has a value or a put has none"));
    }
    Ok(value.map(Bytes::from))
}

/// Returns the statement for rows by id, from a first to a last one.
pub(super) fn select_from() -> String {
    format!("SELECT {COLUMNS}, value FROM changes WHERE id >= ?1 AND id <= ?2 ORDER BY id")
}

/// Reads the key and value of a row; `None` if the row does not exist.
///
/// # Errors
/// [`StoreError::Damaged`], also if the row has another key than `key`.
pub(super) fn read_row(conn: &Connection, key: &Bytes, row: RowId) -> Result<Option<KeyValue>, StoreError> {
    let damaged = |source: rusqlite::Error| damaged_row(Some((key, row)), source);
    let mut statement = conn
        .prepare_cached(
            "SELECT id, create_revision, previous, lease, head_crc, value_crc, key, value FROM changes WHERE id = ?1",
        )
        .map_err(damaged)?;
    let mut rows = statement.query(params![row.0 as i64]).map_err(damaged)?;
    let Some(found) = rows.next().map_err(damaged)? else {
        return Ok(None);
    };
    let head = decode_head(found)?;
    let value = decode_value(found, &head)?;
    if head.key != *key || head.row != row {
        return Err(StoreError::Damaged {
            key: key.clone(),
            revision: row.revision(),
            detail: format!("its row holds key \"{}\"", head.key.escape_ascii()),
        });
    }
    let (Some(value), Some(create_revision)) = (value, head.create_revision) else {
        return Err(head.damaged("its row is a delete"));
    };
    Ok(Some(KeyValue { key: head.key, value, create_revision, mod_revision: row.revision(), lease: head.lease }))
}

/// Writes a row.
pub(super) fn insert(conn: &Connection, head: &Head, value: Option<&Bytes>) -> rusqlite::Result<()> {
    let hasher = head.hasher();
    let head_crc = hasher.clone().finalize();
    let mut hasher = hasher;
    hasher.update(value.map(|value| &value[..]).unwrap_or_default());
    conn.prepare_cached(
        "INSERT INTO changes (id, create_revision, previous, lease, head_crc, value_crc, key, value) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        head.row.0 as i64,
        head.create_revision.map_or(0, |revision| revision.0) as i64,
        head.previous.map_or(0, |row| row.0) as i64,
        head.lease.map_or(0, |lease| lease.0) as i64,
        head_crc,
        hasher.finalize(),
        &head.key[..],
        value.map(|value| &value[..]),
    ])?;
    Ok(())
}

/// Removes a row; returns whether it existed.
pub(super) fn delete(conn: &Connection, row: RowId) -> rusqlite::Result<bool> {
    let deleted = conn.prepare_cached("DELETE FROM changes WHERE id = ?1")?.execute(params![row.0 as i64])?;
    Ok(deleted == 1)
}

/// Reads the heads of all rows in the order of revisions.
pub(super) fn for_each_head(conn: &Connection, mut each: impl FnMut(Head)) -> Result<(), StoreError> {
    let failed = |source| damaged_row(None, source);
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM changes ORDER BY id")).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut last = None;
    while let Some(row) = rows.next().map_err(failed)? {
        let head = decode_head(row)?;
        // A tree with pages from different times may contain rows twice and in any order, each of them valid.
        if last.replace(head.row).is_some_and(|last| last >= head.row) {
            return Err(head.damaged("its row is out of order"));
        }
        each(head);
    }
    Ok(())
}

/// The one row of table `state`, written with every commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub revision: Revision,
    pub compacted_at: Revision,
    /// The number of rows in the table of changes.
    pub rows: u64,
    /// A sum over the ids of all rows.
    pub digest: u64,
}

impl State {
    pub fn add_row(&mut self, row: RowId) {
        self.rows += 1;
        self.digest = self.digest.wrapping_add(mix(row));
    }

    pub fn remove_row(&mut self, row: RowId) {
        self.rows = self.rows.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(mix(row));
    }

    fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for number in [self.revision.0, self.compacted_at.0, self.rows, self.digest] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.finalize()
    }

    pub fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO state (id, revision, compacted_at, rows, digest, crc) VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            self.revision.0 as i64,
            self.compacted_at.0 as i64,
            self.rows as i64,
            self.digest as i64,
            self.crc(),
        ])?;
        Ok(())
    }

    /// Reads the state; `None` if it is absent or does not match its checksum.
    pub fn read(conn: &Connection) -> rusqlite::Result<Option<Self>> {
        let found = conn
            .query_row("SELECT revision, compacted_at, rows, digest, crc FROM state WHERE id = 1", [], |row| {
                let number = |column: usize| row.get::<_, i64>(column).map(|n| n as u64);
                let state = State {
                    revision: Revision(number(0)?),
                    compacted_at: Revision(number(1)?),
                    rows: number(2)?,
                    digest: number(3)?,
                };
                Ok((state, row.get::<_, u32>(4)?))
            })
            .optional()?;
        Ok(found.and_then(|(state, crc)| (state.crc() == crc).then_some(state)))
    }
}

/// Mixes an id into all 64 bits, so that exchanged rows do not cancel out.
fn mix(row: RowId) -> u64 {
    let mut x = row.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Converts an engine failure during a read: damage if the engine reports it.
fn damaged_row(which: Option<(&Bytes, RowId)>, source: rusqlite::Error) -> StoreError {
    let corrupt = matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || source.sqlite_error().is_none();
    if !corrupt {
        return StoreError::backend("read", source);
    }
    StoreError::Damaged {
        key: which.map(|(key, _)| key.clone()).unwrap_or_default(),
        revision: which.map(|(_, row)| row.revision()).unwrap_or_default(),
        detail: source.to_string(),
    }
}

/// As [`damaged_row`], for statements of other modules.
pub(super) fn read_failed(source: rusqlite::Error) -> StoreError {
    damaged_row(None, source)
}

/// Returns the error for a row that is in the index and not in the database.
pub(super) fn missing(key: &Bytes, row: RowId) -> StoreError {
    StoreError::Damaged { key: key.clone(), revision: row.revision(), detail: "its row is missing".to_owned() }
}
