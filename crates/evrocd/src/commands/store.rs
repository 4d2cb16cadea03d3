//! `evrocd store`: copies of the state, and its way from one store to another.
//!
//! A backup is one file, a database of the embedded store, whichever store it was taken from. What is restored or migrated
//! begins at a later revision than all that was given out before, so that clients which come back list again instead of
//! taking old for new.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use evroc_store::copy::{self, Summary};
use evroc_store::embedded::{EmbeddedStore, Options};
use evroc_store::{Revision, Store};

use super::require_root;
use crate::cli::StoreChoice;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord};
use crate::roles::EtcdSettings;
use crate::roles::control::store::{Opener, embedded_folder};

/// How far a restored store's counter is set beyond the backup's: more than anybody writes between a backup and the loss
/// of what came after it (etcd's own documentation advises the same number).
const RESTORE_GAP: u64 = 1_000_000_000;

/// `evrocd store backup FILE`: works while the cloud runs.
pub fn backup(instance: &InstanceName, file: &Path) -> anyhow::Result<ExitCode> {
    require_root("store backup")?;
    let record = record(instance)?;
    let revision = runtime()?.block_on(async {
        match &record.etcd {
            None => {
                let folder = embedded(&record);
                ensure!(
                    folder.join("store.db").exists(),
                    "instance {instance} has no state yet: expected {}; start it first with `evrocd up`",
                    folder.join("store.db").display()
                );
                EmbeddedStore::backup_folder(folder, file).await.context("cannot take the backup")
            }
            Some(etcd) => backup_of_etcd(etcd, &record, file).await,
        }
    })?;
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .with_context(|| format!("cannot make {} private", file.display()))?;
    say!("backup of instance {instance} at revision {revision}: {}", file.display());
    Ok(ExitCode::SUCCESS)
}

async fn backup_of_etcd(etcd: &EtcdSettings, record: &InstanceRecord, file: &Path) -> anyhow::Result<Revision> {
    ensure!(!file.exists(), "{} exists: choose another name", file.display());
    let source = etcd.open_to_read(&record.instance).await?;
    let work = Work::beside(file)?;
    let revision = source.revision().await?;
    let target = Options::new(work.path()).create_at(revision).open().await?;
    copy::copy(&source, &target).await?;
    let taken = target.backup(file).await?;
    target.close().await;
    source.close().await;
    Ok(taken)
}

/// `evrocd store restore FILE`: the cloud must be stopped.
pub fn restore(instance: &InstanceName, file: &Path, replace: bool) -> anyhow::Result<ExitCode> {
    require_root("store restore")?;
    let (_lock, record) = stopped(instance)?;
    let summary = runtime()?.block_on(async {
        let work = Work::beside(&embedded(&record))?;
        let source = open_backup(file, &work).await?;
        let base = Revision(source.revision().await?.0 + RESTORE_GAP);
        let summary = match &record.etcd {
            None => into_embedded(&record, &source, base, replace, "replaced").await?,
            Some(etcd) => {
                if replace {
                    erase(etcd, &record).await?;
                }
                into_etcd(etcd, &record, &source, base)
                    .await
                    .context("cannot restore into the etcd; with --replace, its content is removed first")?
            }
        };
        source.close().await;
        anyhow::Ok(summary)
    })?;
    say!("restored {} keys ({} bytes) and compared them with {}", summary.keys, summary.bytes, file.display());
    say!("start the cloud with `evrocd up --instance {instance}`");
    Ok(ExitCode::SUCCESS)
}

/// `evrocd store migrate --to …`: the cloud must be stopped.
pub fn migrate(instance: &InstanceName, to: &StoreChoice) -> anyhow::Result<ExitCode> {
    require_root("store migrate")?;
    let (_lock, mut record) = stopped(instance)?;
    let target =
        to.settings()?.context("--store: expected where to migrate to, embedded or etcd://HOST:PORT[,…][/PREFIX]")?;
    let from = record.etcd.clone();
    ensure!(from != target, "instance {instance} keeps its state there already: {}", describe(target.as_ref()));
    let summary = runtime()?.block_on(async {
        let (source, revision): (Box<dyn Store>, _) = match &from {
            None => {
                let folder = embedded(&record);
                ensure!(folder.join("store.db").exists(), "instance {instance} has no state yet: nothing to migrate");
                let store = EmbeddedStore::open(folder).await?;
                let revision = store.revision().await?;
                (Box::new(store), revision)
            }
            Some(etcd) => {
                let store = etcd.open(opener(&record, &control(&record))).await?;
                let revision = store.revision().await?;
                (Box::new(store), revision)
            }
        };
        let summary = match &target {
            None => into_embedded(&record, &*source, revision, true, "replaced").await,
            Some(etcd) => into_etcd(etcd, &record, &*source, revision).await,
        };
        source.close().await;
        summary
    })?;
    record.etcd.clone_from(&target);
    record.save()?;
    if from.is_none() {
        // A store that is not used any more must not be taken for the one that is.
        let kept = set_aside(&embedded(&record), "migrated")?;
        own(&record, kept.parent().unwrap_or(&kept), false)?;
        say!("the former store is kept in {}: remove it when all is well", kept.display());
    } else if let Some(etcd) = &from {
        say!("the former store is left in {}: remove it when all is well", etcd.address);
    }
    say!("copied {} keys ({} bytes) to {} and compared them", summary.keys, summary.bytes, describe(target.as_ref()));
    say!("start the cloud with `evrocd up --instance {instance}`");
    Ok(ExitCode::SUCCESS)
}

/// Removes the state of an instance that is purged from its etcd.
pub fn purge(etcd: &EtcdSettings, record: &InstanceRecord) -> anyhow::Result<()> {
    runtime()?.block_on(erase(etcd, record))
}

/// Removes the content of an etcd, unless another cloud uses it.
async fn erase(etcd: &EtcdSettings, record: &InstanceRecord) -> anyhow::Result<()> {
    Ok(etcd.open(opener(record, &control(record))).await?.erase().await?)
}

/// Fills a new embedded store, which replaces the existing one when it is complete.
async fn into_embedded(
    record: &InstanceRecord,
    source: &dyn Store,
    base: Revision,
    replace: bool,
    aside: &str,
) -> anyhow::Result<Summary> {
    let folder = embedded(record);
    let exists = folder.join("store.db").exists();
    ensure!(!exists || replace, "{} holds a store: expected none, or --replace to move it aside", folder.display());
    let work = Work::beside(&folder)?;
    let target = Options::new(work.path()).create_at(base).open().await?;
    let summary = copy::copy(source, &target).await?;
    target.close().await;
    if exists {
        let kept = set_aside(&folder, aside)?;
        say!("the former store is kept in {}: remove it when all is well", kept.display());
    } else if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    work.become_folder(&folder)?;
    own(record, &folder, true)?;
    Ok(summary)
}

async fn into_etcd(
    etcd: &EtcdSettings,
    record: &InstanceRecord,
    source: &dyn Store,
    base: Revision,
) -> anyhow::Result<Summary> {
    let target = etcd.create(&record.instance, base).await?;
    match copy::copy(source, &target).await {
        Ok(summary) => {
            target.close().await;
            Ok(summary)
        }
        Err(error) => {
            let address = target.address().clone();
            if let Err(left) = target.erase().await {
                say!("an incomplete copy is left in {address} ({left}): remove the keys below {}/", address.prefix());
            }
            Err(error.into())
        }
    }
}

/// A backup as a store; the file itself is not touched.
async fn open_backup(file: &Path, work: &Work) -> anyhow::Result<EmbeddedStore> {
    let folder = work.path().join("backup");
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(file, folder.join("store.db")).with_context(|| format!("cannot read {}", file.display()))?;
    EmbeddedStore::open(&folder).await.with_context(|| format!("{} is not a sound backup", file.display()))
}

/// Moves a folder out of the way, to a name that is free.
fn set_aside(folder: &Path, why: &str) -> anyhow::Result<PathBuf> {
    let name = |number: u32| folder.with_file_name(format!("store.{why}-{number}"));
    let free = (1..).map(name).find(|path| !path.exists()).context("no name is free")?;
    fs::rename(folder, &free).with_context(|| format!("cannot rename {} to {}", folder.display(), free.display()))?;
    Ok(free)
}

/// Gives a folder and its content to the user of control.
fn own(record: &InstanceRecord, folder: &Path, with_files: bool) -> anyhow::Result<()> {
    let uid = Some(record.uids.control());
    let give =
        |path: &Path| lchown(path, uid, uid).with_context(|| format!("cannot change the owner of {}", path.display()));
    give(folder)?;
    if with_files {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

/// A folder for a file or folder under construction, which is removed unless it is renamed.
struct Work(PathBuf);

impl Work {
    fn beside(path: &Path) -> anyhow::Result<Self> {
        let absolute = std::path::absolute(path)?;
        let parent = absolute.parent().context("the path has no folder")?;
        for number in 0.. {
            let folder = parent.join(format!(".evrocd-store-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Work(folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
            }
        }
        bail!("no name is free in {}", parent.display())
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Takes the final name, on disk when it returns.
    fn become_folder(self, folder: &Path) -> anyhow::Result<()> {
        fs::rename(&self.0, folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let parent = folder.parent().context("the path has no folder")?;
        Ok(evroc_iam::files::sync_folder(parent)?)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Absent if it was renamed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn control(record: &InstanceRecord) -> PathBuf {
    record.layout().role("control")
}

fn embedded(record: &InstanceRecord) -> PathBuf {
    embedded_folder(&control(record))
}

/// A command stands for its instance, which does not run meanwhile.
fn opener<'a>(record: &'a InstanceRecord, control: &'a Path) -> Opener<'a> {
    Opener { instance: &record.instance, control }
}

fn describe(etcd: Option<&EtcdSettings>) -> &str {
    etcd.map_or("the embedded store", |etcd| &etcd.address)
}

fn record(instance: &InstanceName) -> anyhow::Result<InstanceRecord> {
    InstanceRecord::load(instance)?
        .with_context(|| format!("there is no instance {instance}: `evrocd up --instance {instance}` makes one"))
}

/// The record of an instance that is not running, and the lock that keeps it stopped.
fn stopped(instance: &InstanceName) -> anyhow::Result<(InstanceLock, InstanceRecord)> {
    let record = record(instance)?;
    let stop = format!("stop it first with `evrocd down --instance {instance}`");
    let lock = InstanceLock::acquire(instance).with_context(|| format!("the store is in use: {stop}"))?;
    // A supervisor that was killed leaves its roles serving.
    if let Some(control) = record.roles.get("control")
        && control.open().is_some()
    {
        bail!("the store is in use by process {}: {stop}", control.pid);
    }
    Ok((lock, record))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
