//! Removes everything that an instance owns. Runs after its processes were stopped; remaining ones are ended here.
//!
//! The instance owns: processes with its uids or in its cgroups, its mounts, network namespaces, links, nftables tables, cgroups, its
//! block in /etc/hosts, files, and last the record and lock. Every step goes on when one fails; the first failure is reported at the end,
//! so that a second try has less to do.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use evroc_node::cgroup::Cgroups;
use evroc_node::net::names::Names;
use evroc_node::net::netns::Netns;
use evroc_node::net::uplink::restore_forwarding;
use rustix::process::Signal;

use crate::bootstrap;
use crate::hosts_block::HostsFile;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord, Layout, STATE_ROOT};
use crate::process;

/// The folder of `ip netns`.
const SHARED_NAMESPACES: &str = "/run/netns";

/// Removes the instance.
pub fn purge(record: &InstanceRecord, lock: InstanceLock) -> anyhow::Result<()> {
    let instance: InstanceName = record.instance.parse()?;
    let layout = record.layout();
    let mut problems = Problems::default();
    problems.note("end processes", end_processes(record, &layout));
    problems.note("unmount", unmount_below(&[&layout.state, &layout.run]));
    remove_network(&instance, &mut problems);
    remove_cgroups(&instance, &mut problems);
    // A node that stopped in order has done it already.
    let forwarding =
        process::boot_id().and_then(|boot| restore_forwarding(&record.instance, &boot)).map_err(Into::into);
    problems.note("restore forwarding", forwarding);
    for files in &record.user_files {
        problems.note("remove the user's files", bootstrap::remove_user_files(record, files).map_err(Into::into));
    }
    problems.note("clean /etc/hosts", HostsFile::system().remove(&instance).map_err(Into::into));
    if let Some(etcd) = &record.etcd {
        // A permanently lost etcd must not keep the rest from being removed.
        if let Err(error) = super::store::purge(etcd, record) {
            say!("warning: the state in {} is left, remove its keys by hand: {error:#}", etcd.address);
        }
    }
    for folder in [&layout.run, &layout.state] {
        problems.note("remove", remove_tree(folder));
    }
    problems.finish()?;
    let path = InstanceRecord::path(&instance);
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    InstanceRecord::remove_leftovers(&instance)?;
    Ok(lock.remove()?)
}

/// Purges without a record (an earlier purge was interrupted, or the record was removed by hand): removes everything with its name.
pub fn without_record(instance: &InstanceName) -> anyhow::Result<()> {
    let lock = InstanceLock::acquire(instance)?;
    let layout = Layout::new(instance, Path::new(STATE_ROOT));
    let mut problems = Problems::default();
    problems.note("unmount", unmount_below(&[&layout.state, &layout.run]));
    remove_network(instance, &mut problems);
    remove_cgroups(instance, &mut problems);
    problems.note("clean /etc/hosts", HostsFile::system().remove(instance).map_err(Into::into));
    // Only a folder with our version file: any other may be a user's.
    if layout.state.join("format").exists() {
        problems.note("remove", remove_tree(&layout.state));
        problems.note("remove", remove_tree(&layout.run));
    }
    problems.finish()?;
    InstanceRecord::remove_leftovers(instance)?;
    Ok(lock.remove()?)
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, what: &str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {error:#}"));
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        anyhow::ensure!(self.0.is_empty(), "not everything could be removed (run it again): {}", self.0.join("; "));
        Ok(())
    }
}

/// Kills every process that still runs as the instance: its users, its program (shims, roles), its cgroups.
fn end_processes(record: &InstanceRecord, layout: &Layout) -> anyhow::Result<()> {
    let program = layout.program();
    for _ in 0..50 {
        let members = Cgroups::discover()?.members(&record.instance);
        let left: Vec<process::Found> = process::all()
            .into_iter()
            .filter(|found| {
                found.id.pid != std::process::id().cast_signed()
                    && (record.uids.contains(found.uid) || found.program == program || members.contains(&found.id.pid))
            })
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        for found in left {
            if let Some(handle) = found.id.open() {
                handle.signal(Signal::KILL)?;
            }
        }
        crate::process::pause(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("processes of the instance do not end")
}

fn remove_cgroups(instance: &InstanceName, problems: &mut Problems) {
    let removed = Cgroups::discover().and_then(|cgroups| cgroups.remove_tree(instance.as_str()));
    problems.note("remove control groups", removed.map_err(Into::into));
}

/// Unmounts everything at or below the folders, innermost first.
fn unmount_below(folders: &[&Path]) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    for point in mount_points_below(&mounts, folders) {
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

fn mount_points_below(mountinfo: &str, folders: &[&Path]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(unescape))
        .filter(|point| folders.iter().any(|folder| point.starts_with(folder)))
        .collect();
    found.reverse();
    found
}

/// mountinfo writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

fn remove_network(instance: &InstanceName, problems: &mut Problems) {
    // Namespaces of VPCs are below the instance's folder in /run, but earlier versions kept them in the folder of `ip netns`, where a
    // later mount may hide them.
    let names = Names::new(instance.as_str());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let files = fs::read_dir(SHARED_NAMESPACES).into_iter().flatten().flatten().map(|entry| entry.path());
    let paths: BTreeSet<_> = files.chain(mount_points_below(&mounts, &[Path::new(SHARED_NAMESPACES)])).collect();
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| names.is_legacy_netns(name))
    };
    for path in paths.iter().filter(|path| is_ours(path)) {
        problems.note("remove network namespace", Netns::remove(path).map_err(Into::into));
    }
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if names.is_link(&name)
            && let Err(error) = run("ip", &["link", "delete", &name])
        {
            problems.note("remove link", Err(error));
        }
    }
    // Without nft no table can have been created.
    let Ok(listing) = Command::new("nft").args(["-j", "list", "tables"]).stderr(Stdio::null()).output() else { return };
    for (family, table) in tables_named(&String::from_utf8_lossy(&listing.stdout), names.table()) {
        problems.note("remove nftables table", run("nft", &["delete", "table", &family, &table]));
    }
}

/// Tables of that name in the JSON listing of nft, with their families.
fn tables_named(listing: &str, name: &str) -> Vec<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(listing).unwrap_or_default();
    let entries = value["nftables"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| {
            let table = &entry["table"];
            (table["name"].as_str()? == name).then(|| Some((table["family"].as_str()?.to_owned(), name.to_owned())))?
        })
        .collect()
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn remove_tree(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
        30 22 0:5 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        31 22 0:6 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
        40 22 0:7 / /var/lib/x/node/containers/a/rootfs rw - overlay overlay rw\n\
        41 40 0:8 / /var/lib/x/node/containers/a/rootfs/my\\040tmp rw - tmpfs tmpfs rw\n\
        42 22 0:9 / /var/lib/xy rw - tmpfs tmpfs rw\n";

    #[test]
    fn only_the_instances_mounts_are_found_innermost_first() {
        let found = mount_points_below(MOUNTS, &[Path::new("/var/lib/x"), Path::new("/run/x")]);
        let want = ["/var/lib/x/node/containers/a/rootfs/my tmp", "/var/lib/x/node/containers/a/rootfs"];
        assert_eq!(found, want.map(PathBuf::from));
    }

    #[test]
    fn names_that_others_own_are_not_touched() {
        let listing = r#"{"nftables":[{"metainfo":{}},{"table":{"family":"inet","name":"evroc"}},{"table":{"family":"ip","name":"evroc2"}}]}"#;
        assert_eq!(tables_named(listing, "evroc"), [("inet".to_owned(), "evroc".to_owned())]);
        assert!(tables_named("", "evroc").is_empty());
    }
}
