//! The audit log: one JSON line per request, with caller, source, request, time and outcome.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
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

    /// Returns how many bytes were written since the start.
    fn written_bytes(&self) -> u64 {
        0
    }
}

/// Drops records.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _: AuditRecord) {}
}

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct AuditLimits {
    /// Bytes of one file. Smaller ones are renamed often, larger ones are awkward to read.
    pub file_bytes: u64,
    /// Age of one file, so that files can be found by their day.
    pub file_age: SignedDuration,
    /// Full files beside the current one: all of them together bound the space that requests can take from the store.
    pub kept: u32,
    /// Records of requests without valid credentials in one minute; further ones are counted.
    pub refused_per_minute: u32,
}

impl Default for AuditLimits {
    fn default() -> Self {
        AuditLimits { file_bytes: 64 << 20, file_age: SignedDuration::from_hours(24), kept: 7, refused_per_minute: 60 }
    }
}

/// Appends JSON lines to a file, `<path>`; full ones are `<path>.1`, the newest, to `<path>.7`. A record is
/// handed to the kernel before the response is sent, so it survives a crash of the process. A writer thread would lose that guarantee and
/// cost more than the write.
#[derive(Debug)]
pub struct FileAudit {
    path: PathBuf,
    limits: AuditLimits,
    written_bytes: AtomicU64,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
    /// When its first record was written; `None` while it is empty.
    begun: Option<Timestamp>,
    refused: Refused,
}

/// Requests without valid credentials: every client can send them, so a sample of them is recorded.
#[derive(Debug, Default)]
struct Refused {
    minute: i64,
    recorded: u32,
    left_out: u64,
}

impl Refused {
    /// Whether a record is kept, and how many of the minute before were not, once that is over.
    fn admit(&mut self, record: &AuditRecord, most: u32) -> (bool, Option<u64>) {
        let minute = record.time.as_second().div_euclid(60);
        let mut before = None;
        if minute != self.minute {
            before = Some(self.left_out).filter(|count| *count > 0);
            *self = Refused { minute, ..Refused::default() };
        }
        if record.code != 401 {
            return (true, before);
        }
        if self.recorded >= most {
            self.left_out += 1;
            return (false, before);
        }
        self.recorded += 1;
        (true, before)
    }
}

impl FileAudit {
    /// Opens or creates the file, readable for its owner only.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, limits: AuditLimits) -> io::Result<Self> {
        let file = open_file(path)?;
        let bytes = file.metadata()?.len();
        let current = Current { file, bytes, begun: first_time(path), refused: Refused::default() };
        Ok(FileAudit { path: path.to_owned(), limits, written_bytes: AtomicU64::new(0), current: Mutex::new(current) })
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn write(&self, current: &mut Current, record: &AuditRecord) -> io::Result<()> {
        let age = current.begun.map_or(SignedDuration::ZERO, |begun| record.time.duration_since(begun));
        if current.bytes > 0 && (current.bytes >= self.limits.file_bytes || age >= self.limits.file_age) {
            for number in (1..self.limits.kept).rev() {
                rename_if_present(&self.numbered(number), &self.numbered(number + 1))?;
            }
            rename_if_present(&self.path, &self.numbered(1))?;
            current.file = open_file(&self.path)?;
            (current.bytes, current.begun) = (0, None);
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        current.file.write_all(&line)?;
        current.bytes += line.len() as u64;
        self.written_bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
        current.begun.get_or_insert(record.time);
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn rename_if_present(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// When the first record of a file was written, if it has one that can be read.
fn first_time(path: &Path) -> Option<Timestamp> {
    let mut line = String::new();
    BufReader::new(File::open(path).ok()?).take(1 << 16).read_line(&mut line).ok()?;
    serde_json::from_str::<serde_json::Value>(&line).ok()?.get("time")?.as_str()?.parse().ok()
}

/// Whether a record has no use later: permitted reads of the platform itself. It reads all day.
fn is_routine(record: &AuditRecord) -> bool {
    let is_read = matches!(record.verb.as_str(), "get" | "list" | "watch");
    let is_platform = record.user.as_ref().is_some_and(|user| PLATFORM.iter().any(|group| user.is_in(group)));
    // Monitoring systems read them several times a minute.
    let is_metrics = record.resource.is_empty() && record.uri.starts_with("/metrics");
    is_read && (is_platform || is_metrics) && record.code < 400
}

/// Groups whose reads are routine.
const PLATFORM: [&str; 3] = ["system:controllers", "system:nodes", "system:edges"];

impl AuditSink for FileAudit {
    fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    fn record(&self, record: AuditRecord) {
        if is_routine(&record) {
            return;
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_kept, left_out) = current.refused.admit(&record, self.limits.refused_per_minute);
        let mut written = Ok(());
        if let Some(count) = left_out {
            let reason = format!("{count} further requests without valid credentials were not recorded one by one");
            let summary = AuditRecord {
                audit_id: String::new(),
                user: None,
                source: "unknown".into(),
                user_agent: String::new(),
                verb: String::new(),
                uri: String::new(),
                group: String::new(),
                resource: String::new(),
                subresource: String::new(),
                namespace: String::new(),
                name: String::new(),
                code: 401,
                reason,
                duration_us: 0,
                ..record.clone()
            };
            written = self.write(&mut current, &summary);
        }
        if is_kept {
            written = written.and_then(|()| self.write(&mut current, &record));
        }
        if let Err(error) = written {
            tracing::error!(%error, "writing an audit record failed");
        }
    }
}

/// Bytes of a request's path and query that are recorded.
const URI_BYTES: usize = 2 * 1024;
/// Bytes of the user agent that are recorded.
const AGENT_BYTES: usize = 256;
/// Bytes of a reason that are recorded.
const REASON_BYTES: usize = 1024;

/// Parameters of requests whose values are recorded. Values of others may be secrets that were put into them by mistake.
const SHOWN: [&str; 29] = [
    "allowWatchBookmarks",
    "container",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "follow",
    "force",
    "gracePeriodSeconds",
    "includeObject",
    "labelSelector",
    "limit",
    "orphanDependents",
    "port",
    "ports",
    "pretty",
    "previous",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "timeout",
    "timeoutSeconds",
    "timestamps",
    "watch",
];

/// Path and query as they are recorded: without values of unknown parameters, and clipped.
pub(crate) fn shown_uri(uri: &http::Uri) -> String {
    let mut shown = uri.path().to_owned();
    let query = uri.query().unwrap_or_default();
    for (index, parameter) in query.split('&').filter(|it| !it.is_empty()).enumerate() {
        if shown.len() > URI_BYTES {
            break;
        }
        shown.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if !SHOWN.contains(&name) => {
                shown.push_str(name);
                shown.push_str("=...");
            }
            _ => shown.push_str(parameter),
        }
    }
    clipped(&shown, URI_BYTES)
}

/// A user agent as it is recorded.
pub(crate) fn shown_agent(agent: &str) -> String {
    clipped(agent, AGENT_BYTES)
}

/// A reason as it is recorded: it may quote the request.
pub(crate) fn shown_reason(reason: &str) -> String {
    clipped(reason, REASON_BYTES)
}

/// Returns the text, or the part of it that fits into this many bytes, with a mark that it is not all.
fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seconds: i64, code: u16) -> AuditRecord {
        AuditRecord {
            time: Timestamp::from_second(seconds).unwrap(),
            audit_id: "id".into(),
            user: None,
            source: "10.0.0.1:1".into(),
            user_agent: String::new(),
            verb: "create".into(),
            uri: "/api".into(),
            group: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            code,
            reason: String::new(),
            duration_us: 1,
        }
    }

    fn sizes(folder: &Path) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap());
        let mut sizes: Vec<_> =
            entries.map(|it| (it.file_name().into_string().unwrap(), it.metadata().unwrap().len())).collect();
        sizes.sort();
        sizes
    }

    #[test]
    fn the_log_rotates_by_size_and_its_total_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let limits = AuditLimits { file_bytes: 2_000, kept: 3, ..AuditLimits::default() };
        let audit = FileAudit::open(&folder.path().join("audit.jsonl"), limits).unwrap();
        (0..500).for_each(|_| audit.record(record(0, 201)));
        let sizes = sizes(folder.path());
        let names: Vec<&str> = sizes.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]);
        assert!(sizes.iter().all(|it| it.1 < 2_500), "{sizes:?}");
    }

    #[test]
    fn the_log_rotates_by_age_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        FileAudit::open(&path, AuditLimits::default()).unwrap().record(record(0, 201));
        let audit = FileAudit::open(&path, AuditLimits::default()).unwrap();
        audit.record(record(23 * 3600, 201));
        assert_eq!(sizes(folder.path()).len(), 1);
        audit.record(record(24 * 3600, 201));
        assert_eq!(sizes(folder.path()).len(), 2);
    }

    #[test]
    fn requests_without_credentials_are_sampled_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let limits = AuditLimits { refused_per_minute: 2, ..AuditLimits::default() };
        let audit = FileAudit::open(&path, limits).unwrap();
        (0..100).for_each(|_| audit.record(record(0, 401)));
        audit.record(record(1, 201));
        audit.record(record(60, 401));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 5, "two, the write, the count of the others, the next minute's: {text}");
        assert!(text.contains("98 further requests"), "{text}");
    }

    #[test]
    fn reads_of_the_platform_are_left_out_unless_they_are_refused() {
        let by = |group: &str, verb: &str, code| AuditRecord {
            user: Some(Identity::new("it", [group])),
            verb: verb.into(),
            ..record(0, code)
        };
        assert!(is_routine(&by("system:nodes", "watch", 200)));
        assert!(!is_routine(&by("system:nodes", "get", 403)));
        assert!(!is_routine(&by("system:controllers", "update", 200)));
        assert!(!is_routine(&by("evroc:operators", "list", 200)));
    }

    #[test]
    fn what_is_recorded_of_a_request_is_short_and_without_secrets() {
        let uri = |text: &str| shown_uri(&text.parse().unwrap());
        assert_eq!(
            uri("/api/v1/x?watch=true&access_token=abc&limit=5"),
            "/api/v1/x?watch=true&access_token=...&limit=5"
        );
        assert_eq!(uri("/api"), "/api");
        let long = uri(&format!("/{}?watch={}", "a".repeat(30_000), "b".repeat(20_000)));
        assert!(long.len() < 2_100 && long.ends_with("..."));
        assert!(uri(&format!("/?{}", "a=b&".repeat(10_000))).len() < 2_100);
        assert_eq!(shown_agent(&"ä".repeat(300)).len(), 256 + 3);
    }
}
