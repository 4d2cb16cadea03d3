//! From options to a state in which roles can be started. Every step is safe to repeat: an interrupted start is finished by the next one.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use evroc_iam::files::Owner;
use evroc_node::net::names::Names;
use serde::{Deserialize, Deserializer, Serialize};

use super::progress::Progress;
use super::takeover;
use crate::bootstrap::{self, Caller};
use crate::instance::{
    InstanceLock, InstanceName, InstanceRecord, Layout, Ports, STATE_ROOT, all_records, choose_uid_base, ensure_format,
    registry_lock,
};
use crate::logging::SupervisorLog;
use crate::ports::{self, Bound, PortChoice, Purpose};
use crate::process::{ProcessId, boot_id};
use crate::roles::EtcdSettings;
use crate::roles::control::store::embedded_folder;

/// The options of `evrocd up`. `None` keeps the value in the instance's record, or the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpOptions {
    /// Parent of the state folder.
    pub state_root: Option<PathBuf>,
    /// API port, 0 for any.
    pub api_port: Option<u16>,
    /// HTTPS port, 0 for any.
    pub https_port: Option<u16>,
    /// Domain of the fixed names and services.
    pub domain: Option<String>,
    /// Whether the fixed names go into /etc/hosts.
    pub hosts_block: Option<bool>,
    /// Folder of built images.
    pub image_dir: Option<PathBuf>,
    /// Folder of CustomResourceDefinitions; `none` for none any more.
    pub crd_dir: Option<PathBuf>,
    /// How long a service without requests keeps its last container.
    pub scale_to_zero_seconds: Option<u64>,
    /// The way out of VPCs.
    pub uplink: Option<String>,
    /// Life of the certificates of roles.
    pub leaf_life_seconds: Option<u64>,
    /// The collector of traces; `none` for none any more.
    pub otlp_endpoint: Option<String>,
    /// The zone of this host.
    pub zone: Option<String>,
    /// Where the state is kept: `Some(None)` is the embedded store, which is `null` in JSON, where `None` is left out.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub store: Option<Option<EtcdSettings>>,
}

/// A value that is present, `null` included.
fn present<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Option<EtcdSettings>>, D::Error> {
    Option::deserialize(json).map(Some)
}

/// Sockets that this process already held before it replaced itself.
#[derive(Default)]
pub struct Inherited {
    /// API sockets.
    pub api: Vec<TcpListener>,
    /// HTTPS sockets.
    pub https: Vec<TcpListener>,
    /// The instance's lock.
    pub lock: Option<InstanceLock>,
}

/// Everything that the supervisor's loop needs.
pub struct Prepared {
    /// The instance's lock, held until the process ends.
    pub lock: InstanceLock,
    /// The record, saved.
    pub record: InstanceRecord,
    /// API sockets.
    pub api: Vec<TcpListener>,
    /// HTTPS sockets.
    pub https: Vec<TcpListener>,
    /// Digest of the program.
    pub digest: String,
    /// This boot.
    pub boot_id: String,
    /// When the first certificate is to be renewed: seconds since 1970.
    pub renewal: i64,
}

/// Default domain.
const DEFAULT_DOMAIN: &str = "evroc.localhost";

/// Prepares the start.
pub async fn prepare(
    instance: &InstanceName,
    options: &UpOptions,
    inherited: Inherited,
    log: &SupervisorLog,
    progress: &mut Progress,
) -> anyhow::Result<Prepared> {
    let lock = match inherited.lock {
        Some(lock) => lock,
        None => InstanceLock::acquire(instance)?,
    };
    InstanceRecord::remove_leftovers(instance)?;
    let boot_id = boot_id().context("cannot read the boot id")?;
    let mut record = load_or_create(instance, options)?;
    let layout = record.layout();

    if let Some(note) = ensure_format(&layout.state)? {
        progress.note(note);
    }
    for note in bootstrap::ensure_folders(&record)? {
        progress.note(note);
    }
    log.reopen(bootstrap::open_log(&layout, "supervisor", Owner { uid: 0, gid: 0 })?);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), instance = %instance, "supervisor starts");

    if !record.boot_id.is_empty() && record.boot_id != boot_id {
        progress.note("the machine was restarted since this instance last ran: virtual machines with `running: true` are started again");
    }
    let left = takeover::find(&record, &boot_id);
    let (mut api, mut https) = (inherited.api, inherited.https);
    if let Some(ports) = record.ports {
        if api.is_empty() {
            api = takeover::take_listeners(&left, ports.api.port);
        }
        if https.is_empty() {
            https = takeover::take_listeners(&left, ports.https.port);
        }
    }
    if !left.is_empty() {
        progress.note(format!("taking over from an earlier supervisor: {} of its roles still ran", left.len()));
        takeover::end(&left).await;
    }

    let digest = bootstrap::digest_of_self()?;
    if bootstrap::install_program(&layout.program(), &digest)? {
        tracing::info!(digest, "copied the program into the state folder");
    }
    let (api, https) = bind_both(&mut record, options, api, https, progress)?;
    let ports = record.ports.context("no ports were chosen")?;

    let now = SystemTime::now();
    for note in bootstrap::resume_rotation(&record, now).context("cannot finish the rotation of the authority")? {
        progress.note(note);
    }
    let certificates = bootstrap::ensure_certificates(&record, now)?;
    for note in &certificates.notes {
        progress.note(note.clone());
    }
    if let Some(etcd) = &record.etcd {
        bootstrap::install_etcd_files(&record, etcd)?;
    }
    let caller = Caller::current();
    match bootstrap::ensure_user_files(&record, &ports, &certificates.trust, &caller, now) {
        Ok(files) => {
            record.user_files.retain(|known| known.folder != files.folder);
            record.user_files.push(files);
        }
        // The cloud works without it; the user is warned.
        Err(error) => progress.note(format!("warning: {:#}", anyhow::Error::from(error))),
    }
    let hosts = crate::hosts_block::HostsFile::system();
    let block = if record.hosts_block { hosts.ensure(instance, &record.domain) } else { hosts.remove(instance) };
    if let Err(error) = block {
        let error = anyhow::Error::from(error);
        progress.note(format!(
            "warning: {error:#}; names like api.{} work in curl and browsers only, or use --no-hosts-block",
            record.domain
        ));
    }
    if let Some(folder) = record.image_dir.clone() {
        import_images(&layout, &folder, progress);
    }
    crate::definitions::install(&record).context("--crd-dir")?;
    record.boot_id = boot_id.clone();
    record.evrocd = env!("CARGO_PKG_VERSION").to_owned();
    record.roles.clear();
    record.supervisor = ProcessId::current();
    record.save()?;
    let renewal = certificates.renewal;
    Ok(Prepared { lock, record, api, https, digest, boot_id, renewal })
}

fn load_or_create(instance: &InstanceName, options: &UpOptions) -> anyhow::Result<InstanceRecord> {
    let _registry = registry_lock("registry")?;
    let mut record = match InstanceRecord::load(instance)? {
        Some(record) => record,
        None => {
            let others = all_records()?;
            if let Some(other) = same_links(instance, others.iter().map(|record| record.instance.as_str())) {
                anyhow::bail!(
                    "instance {instance}: its network links would have the same names as those of instance {other}, which exists on this \
                     machine; choose another name (--instance)"
                );
            }
            let taken: Vec<_> = others.iter().map(|record| record.uids).collect();
            let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
            let root = options.state_root.clone().unwrap_or_else(|| Path::new(STATE_ROOT).to_owned());
            anyhow::ensure!(root.is_absolute(), "--state-dir-root {}: expected an absolute path", root.display());
            InstanceRecord::new(instance, &root, choose_uid_base(&taken, &subuid)?, DEFAULT_DOMAIN)
        }
    };
    if let Some(root) = &options.state_root
        && *root != record.state_root
    {
        anyhow::bail!(
            "--state-dir-root {}: instance {instance} keeps its state in {}; leave the flag out, or remove the instance with `evrocd down --purge --instance {instance}` first",
            root.display(),
            record.layout().state.display()
        );
    }
    if let Some(domain) = &options.domain {
        record.domain = domain.clone();
    }
    if let Some(wanted) = options.hosts_block {
        record.hosts_block = wanted;
    }
    if let Some(folder) = &options.image_dir {
        record.image_dir = Some(folder.clone());
    }
    if let Some(folder) = &options.crd_dir {
        record.crd_dir = (folder.as_os_str() != "none").then(|| folder.clone());
    }
    if let Some(uplink) = &options.uplink {
        record.uplink.clone_from(uplink);
    }
    if let Some(seconds) = options.leaf_life_seconds {
        record.leaf_life_seconds = seconds;
    }
    if let Some(endpoint) = &options.otlp_endpoint {
        record.otlp_endpoint = (endpoint != "none").then(|| endpoint.clone());
    }
    if let Some(zone) = &options.zone {
        choose_zone(&mut record, zone)?;
    }
    if let Some(seconds) = options.scale_to_zero_seconds {
        record.scale_to_zero_seconds = seconds;
    }
    if let Some(wanted) = &options.store {
        choose_store(&mut record, wanted.as_ref())?;
    }
    record.save()?;
    Ok(record)
}

/// Returns the one of `others` whose links on this machine could not be distinguished from those of `instance`: names of links have
/// room for a part of a hash only.
fn same_links<'a>(instance: &InstanceName, others: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let prefix = Names::new(instance.as_str()).link_prefix().to_owned();
    others.into_iter().find(|other| *other != instance.as_str() && Names::new(other).link_prefix() == prefix)
}

/// Takes over the choice of the store, unless a cloud would start without the state that it has.
fn choose_store(record: &mut InstanceRecord, wanted: Option<&EtcdSettings>) -> anyhow::Result<()> {
    let database = embedded_folder(&record.layout().role("control")).join("store.db");
    let moves = match (&record.etcd, wanted) {
        (None, Some(_)) => database.exists(),
        (Some(_), None) => true,
        (None, None) => false,
        // Members and certificates change; what makes it another place is that nothing of the old one is left.
        (Some(found), Some(wanted)) => !found.is_same_cluster(wanted),
    };
    if moves {
        let (found, to) = (
            record.etcd.as_ref().map_or("its embedded store", |etcd| &etcd.address),
            wanted.map_or("embedded", |etcd| &etcd.address),
        );
        anyhow::bail!(
            "--store {to}: instance {0} keeps its state in {found}; copy it with `evrocd store migrate --instance {0} --store {to}`, or leave the flag out",
            record.instance
        );
    }
    record.etcd = wanted.cloned();
    Ok(())
}

/// Takes over the zone of an instance that has not run yet: what was made in a zone stays in it.
fn choose_zone(record: &mut InstanceRecord, zone: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        record.ports.is_none() || record.zone == zone,
        "--zone {zone}: the host of instance {0} is in zone {1}, with all that was made there; leave the flag out, or remove the instance with \
         `evrocd down --purge --instance {0}` first",
        record.instance,
        record.zone
    );
    zone.clone_into(&mut record.zone);
    Ok(())
}

fn bind_both(
    record: &mut InstanceRecord,
    options: &UpOptions,
    api: Vec<TcpListener>,
    https: Vec<TcpListener>,
    progress: &mut Progress,
) -> anyhow::Result<(Vec<TcpListener>, Vec<TcpListener>)> {
    // Held until the choice is saved, so that two new instances cannot reserve the same port.
    let _registry = registry_lock("registry")?;
    let others: BTreeSet<u16> = all_records()?
        .iter()
        .filter(|other| other.instance != record.instance)
        .filter_map(|other| other.ports)
        .flat_map(|ports| [ports.api.port, ports.https.port])
        .collect();
    let old = record.ports;
    let api = bind_one(ports::API, options.api_port, old.map(|ports| ports.api), api, &others)?;
    let mut reserved = others;
    reserved.insert(api.choice.port);
    let https = bind_one(ports::HTTPS, options.https_port, old.map(|ports| ports.https), https, &reserved)?;
    for bound in [&api, &https] {
        if let Some(note) = &bound.note {
            progress.note(note.clone());
        }
    }
    record.ports = Some(Ports { api: api.choice, https: https.choice });
    record.save()?;
    Ok((api.listeners, https.listeners))
}

fn bind_one(
    purpose: Purpose,
    flag: Option<u16>,
    old: Option<PortChoice>,
    taken_over: Vec<TcpListener>,
    reserved: &BTreeSet<u16>,
) -> anyhow::Result<Bound> {
    if let (Some(choice), false) = (old, taken_over.is_empty()) {
        let is_wanted = flag.is_none_or(|flag| flag == choice.port || flag == 0);
        if is_wanted {
            return Ok(Bound { listeners: taken_over, choice, note: None });
        }
    }
    drop(taken_over);
    Ok(ports::bind(purpose, &ports::candidates(purpose, flag, old, reserved), old, reserved)?)
}

fn import_images(layout: &Layout, folder: &Path, progress: &mut Progress) {
    match crate::image::import_all(&layout.images(), folder) {
        Ok(notes) => notes.into_iter().for_each(|note| progress.note(note)),
        Err(error) => progress.note(format!("warning: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_whose_links_are_anothers_is_refused() {
        let instance: InstanceName = "evroc".parse().unwrap();
        let prefix = |name: &str| Names::new(name).link_prefix().to_owned();
        // Sixteen bits of a hash: among some ten thousand names there is another with the same.
        let twin = (0..).map(|n| format!("i{n}")).find(|name| prefix(name) == prefix("evroc")).unwrap();
        assert_eq!(same_links(&instance, ["demo", "evroc"]), None, "itself and others");
        assert_eq!(same_links(&instance, ["demo", &twin]), Some(twin.as_str()));
    }
}
