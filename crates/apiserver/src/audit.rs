//! Who did what, when, from where, and what became of it: one JSON line per request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::authn::Identity;

/// One request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// When it came.
    pub time: Timestamp,
    /// Also in the answer's `Audit-Id` header.
    pub audit_id: String,
    /// Who; `None` if not authenticated.
    pub user: Option<Identity>,
    /// The address, or `in-process`.
    pub source: String,
    /// From the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// Kubernetes verb.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// Empty for the core group and for what is not a resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Empty without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// Empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Empty for collections.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The HTTP status.
    pub code: u16,
    /// Why it was refused, by whoever refused it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Until the answer's headers were sent, in microseconds.
    pub duration_us: u64,
}

/// Where records go.
pub trait AuditSink: Send + Sync {
    /// Takes a record; must not block for long.
    fn record(&self, record: AuditRecord);
}

/// Drops records.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _: AuditRecord) {}
}

/// Appends JSON lines to a file, from a thread of its own.
#[derive(Debug)]
pub struct FileAudit {
    lines: Mutex<std::sync::mpsc::SyncSender<AuditRecord>>,
}

/// Records that may wait for the disk; beyond it requests wait too.
const QUEUE: usize = 8_192;

impl FileAudit {
    /// Opens or creates the file, readable for its owner only.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUE);
        std::thread::Builder::new().name("audit".into()).spawn(move || write_lines(file, &receiver))?;
        Ok(FileAudit { lines: Mutex::new(sender) })
    }
}

fn write_lines(file: File, records: &std::sync::mpsc::Receiver<AuditRecord>) {
    let mut out = io::BufWriter::with_capacity(1 << 16, file);
    while let Ok(first) = records.recv() {
        // As many as wait, then one write.
        for record in std::iter::once(first).chain(records.try_iter()) {
            let written =
                serde_json::to_writer(&mut out, &record).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"));
            if let Err(error) = written {
                tracing::error!(%error, "audit record cannot be written");
            }
        }
        if let Err(error) = out.flush() {
            tracing::error!(%error, "audit records cannot be written");
        }
    }
}

impl AuditSink for FileAudit {
    fn record(&self, record: AuditRecord) {
        // The thread ends only when this sender does.
        let _ = self.lines.lock().unwrap_or_else(PoisonError::into_inner).send(record);
    }
}
