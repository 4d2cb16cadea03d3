//! `evrocd pki`: the authority, its certificates, and their replacement.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use evroc_iam::files;
use evroc_iam::leaf::Leaf;
use evroc_iam::rotation::PkiFiles;
use evroc_iam::token::TokenKey;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::require_root;
use crate::bootstrap;
use crate::cli::{Output, ReportArgs};
use crate::instance::{InstanceLock, InstanceName, InstanceRecord};
use crate::supervisor::protocol::{Reply, Request};
use crate::supervisor::{client, rotation_outcome};

/// The content of `evrocd pki status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    authorities: Vec<AuthorityStatus>,
    /// The stage that comes next; absent while no rotation is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<String>,
    token_keys: Vec<TokenKeyStatus>,
    certificates: Vec<CertificateStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityStatus {
    name: String,
    /// `signs`, `next` or `retired`.
    state: &'static str,
    /// Until when it is trusted.
    until: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenKeyStatus {
    id: String,
    /// `signs` or `retired`.
    state: &'static str,
    /// Until when its tokens are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateStatus {
    file: String,
    subject: String,
    issuer: String,
    serial: String,
    until: Timestamp,
    /// When it is replaced.
    renewal: Timestamp,
}

/// `evrocd pki status`.
pub fn status(arguments: &ReportArgs) -> anyhow::Result<ExitCode> {
    require_root("pki status")?;
    let record = record(&arguments.instance.instance)?;
    let status = gather(&record)?;
    match arguments.output {
        Output::Json => say!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => say!("{}", text(&status).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `evrocd pki rotate`: by the supervisor where one runs, else by this process.
pub fn rotate(instance: &InstanceName, overlap_days: u32, prepare: bool) -> anyhow::Result<ExitCode> {
    require_root("pki rotate")?;
    let record = record(instance)?;
    let overlap = Duration::from_secs(u64::from(overlap_days) * 24 * 3600);
    let socket = record.layout().supervisor_socket();
    if client::status(&socket)?.is_some() {
        let request = Request::RotateAuthority { overlap_seconds: overlap.as_secs(), is_held: prepare };
        let mut outcome = Err("the supervisor ended meanwhile; the next `evrocd up` finishes the rotation".to_owned());
        let asked = client::ask(&socket, &request, |reply| match reply {
            Reply::Progress { message } => say!("{message}"),
            Reply::Done { message } => outcome = Ok(message),
            Reply::Error { message } => outcome = Err(message),
            Reply::Status(_) => {}
        });
        match outcome {
            Ok(message) => say!("{message}"),
            Err(message) => {
                asked.context(message.clone())?;
                bail!(message);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = InstanceLock::acquire(instance)?;
    if !crate::supervisor::takeover::find(&record, &crate::process::boot_id()?).is_empty() {
        bail!("roles of instance {instance} run without a supervisor: run `evrocd up` first, which takes them over");
    }
    let files = bootstrap::pki_files(&record);
    let now = SystemTime::now();
    files.begin(overlap, prepare, now)?;
    bootstrap::resume_rotation(&record, now)?.iter().for_each(|note| say!("{note}"));
    bootstrap::ensure_certificates(&record, now)?;
    say!("{}", rotation_outcome(files.rotation()?.as_ref(), &record.layout().public_authority()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn record(instance: &InstanceName) -> anyhow::Result<InstanceRecord> {
    let record = InstanceRecord::load(instance)?.with_context(|| format!("there is no instance {instance}"))?;
    if !bootstrap::pki_files(&record).signing().certificate.exists() {
        bail!("instance {instance} has no authority yet: start it with `evrocd up --instance {instance}`");
    }
    Ok(record)
}

fn gather(record: &InstanceRecord) -> anyhow::Result<Status> {
    let keys = bootstrap::pki_files(record);
    let rotation = keys.rotation()?;
    let mut certificates = Vec::new();
    for leaf in bootstrap::role_leaves(record) {
        let path = leaf.paths.certificate;
        let Some(bytes) = files::read_if_exists(&path)? else { continue };
        let leaf = Leaf::read(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        certificates.push(CertificateStatus {
            file: path.strip_prefix(record.layout().state).unwrap_or(&path).display().to_string(),
            until: time(leaf.not_after)?,
            renewal: time(leaf.renewal())?,
            subject: leaf.subject,
            issuer: leaf.issuer,
            serial: leaf.serial,
        });
    }
    Ok(Status {
        authorities: authorities(&keys)?,
        rotation: rotation.map(|rotation| format!("{:?}", rotation.stage)),
        token_keys: token_keys(&keys)?,
        certificates,
    })
}

fn authorities(keys: &PkiFiles) -> anyhow::Result<Vec<AuthorityStatus>> {
    let mut all = Vec::new();
    let mut add = |bytes: &[u8], state, until: Option<u64>| {
        let leaf = Leaf::read(bytes).context("the certificate of an authority is damaged")?;
        let until = until.and_then(|until| i64::try_from(until).ok()).unwrap_or(leaf.not_after).min(leaf.not_after);
        all.push(AuthorityStatus { name: leaf.subject, state, until: time(until)? });
        anyhow::Ok(())
    };
    for (path, state) in [(keys.signing().certificate, "signs"), (keys.next_certificate(), "next")] {
        if let Some(bytes) = files::read_if_exists(&path)? {
            add(&bytes, state, None)?;
        }
    }
    for retired in keys.retired()? {
        add(retired.certificate.as_bytes(), "retired", Some(retired.until))?;
    }
    Ok(all)
}

fn token_keys(keys: &PkiFiles) -> anyhow::Result<Vec<TokenKeyStatus>> {
    let mut all = Vec::new();
    if let Some(bytes) = files::read_if_exists(&keys.token_key())? {
        let key = std::str::from_utf8(&bytes).ok().and_then(TokenKey::from_pem).context("the token key is damaged")?;
        all.push(TokenKeyStatus { id: key.id().to_owned(), state: "signs", until: None });
    }
    for key in keys.retired_keys()? {
        let until = time(i64::try_from(key.until).unwrap_or(i64::MAX))?;
        if until > Timestamp::now() {
            all.push(TokenKeyStatus { id: key.id(), state: "retired", until: Some(until) });
        }
    }
    Ok(all)
}

fn time(seconds: i64) -> anyhow::Result<Timestamp> {
    Timestamp::from_second(seconds).with_context(|| format!("{seconds} is no time"))
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    let line = &mut out;
    let _ = writeln!(line, "AUTHORITY                       STATE    TRUSTED UNTIL");
    for one in &status.authorities {
        let _ = writeln!(line, "{:<31} {:<8} {}", one.name, one.state, one.until);
    }
    let _ = writeln!(line, "\nTOKEN KEY                       STATE    ACCEPTED UNTIL");
    for one in &status.token_keys {
        let until = one.until.map(|until| until.to_string()).unwrap_or_default();
        let _ = writeln!(line, "{}", format!("{:<31} {:<8} {until}", one.id, one.state).trim_end());
    }
    let _ = writeln!(
        line,
        "\nCERTIFICATE             SUBJECT                        UNTIL                 RENEWED AT            SIGNED BY"
    );
    for one in &status.certificates {
        let issuer = one.issuer.rsplit("CN=").next().unwrap_or_default();
        let (until, renewal) = (one.until.to_string(), one.renewal.to_string());
        let _ = writeln!(line, "{:<23} {:<30} {until:<21} {renewal:<21} {issuer}", one.file, one.subject);
    }
    if let Some(stage) = &status.rotation {
        let _ = writeln!(line, "\na rotation is under way, next stage {stage}: `evrocd pki rotate` goes on with it");
    }
    out
}
