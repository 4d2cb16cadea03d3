//! The audit log: one JSON line per request, with caller, source, request, time and outcome.

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
    /// The time of arrival.
    pub time: Timestamp,
    /// Also in the response's `Audit-Id` header.
    pub audit_id: String,
    /// The caller; `None` if not authenticated.
    pub user: Option<Identity>,
    /// The address, or `in-process`.
    pub source: String,
    /// The `User-Agent` header.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// Kubernetes verb.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// Empty for the core group and for paths that are not a resource.
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
    /// The reason of a refusal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The time until the response's headers, in microseconds.
    pub duration_us: u64,
}

/// The destination of audit records.
pub trait AuditSink: Send + Sync {
    /// Records a request; must not block for long.
    fn record(&self, record: AuditRecord);
}

/// Drops records.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _: AuditRecord) {}
}

/// Appends JSON lines to a file. The record is handed to the kernel before the response is sent, so it survives a crash of the
/// process. A writer thread would lose that guarantee and cost more than the write.
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
        // One write call per line, so that lines of concurrent requests do not mix.
        let written = serde_json::to_writer(&mut line, &record).map_err(io::Error::from).and_then(|()| {
            line.push(b'\n');
            (&self.file).write_all(&line)
        });
        if let Err(error) = written {
            tracing::error!(%error, "writing an audit record failed");
        }
    }
}
