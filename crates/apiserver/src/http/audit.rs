//! Who did what, when, from where, and what became of it: one JSON line per request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::object::identity::Identity;

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

/// Appends JSON lines to a file. A record is the kernel's before its request is answered, so that what a client knows to be done
/// stands in the log although the process is killed; a thread between the two would lose that and cost more than the write.
#[derive(Debug)]
pub struct FileAudit {
    file: File,
}

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
        Ok(FileAudit { file: options.open(path)? })
    }
}

impl AuditSink for FileAudit {
    fn record(&self, record: AuditRecord) {
        let mut line = Vec::with_capacity(512);
        // One call for a line: those of other requests do not get between.
        let written = serde_json::to_writer(&mut line, &record).map_err(io::Error::from).and_then(|()| {
            line.push(b'\n');
            (&self.file).write_all(&line)
        });
        if let Err(error) = written {
            tracing::error!(%error, "audit record cannot be written");
        }
    }
}
