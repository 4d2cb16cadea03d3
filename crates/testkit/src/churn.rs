//! Groups, virtual machines, disks and services that come and go, and the sizes of whatever may be left of them.

use std::collections::BTreeMap;
use std::path::Path;

use evroc_api::compute::{Disk, VirtualMachine};
use evroc_api::iam::{ResourceGroup, ResourceGroupSpec};
use evroc_api::run::Service;
use evroc_store::{KeyRange, RangeRequest, Store as _};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::client::{ApiOf, describe};
use crate::host::IMAGE;
use crate::objects::{HasConditions, blank_disk, disk, placement_group, service, serving, virtual_machine};
use crate::platform::{DOMAIN, Platform};
use crate::wait::eventually;

/// Objects of the API server that come with every change and expire by themselves after an hour.
const EXPIRE: [&str; 2] = ["/o/core/events", "/o/events.k8s.io/events"];

/// How much there is of everything that could grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Keys of the store by what they are of: objects of a kind, claims of a sort.
    pub keys: BTreeMap<String, usize>,
    /// Bytes of the store's files, after it has forgotten the past.
    pub store_bytes: u64,
    /// Files and folders of the hosts' agents.
    pub agent_files: usize,
    /// Guests, containers and volumes on the hosts.
    pub on_hosts: usize,
    /// Tasks of the runtime.
    pub tasks: usize,
    /// Descriptors of the process.
    pub descriptors: usize,
    /// Resident memory of the process in bytes.
    pub resident_bytes: u64,
}

impl Sizes {
    /// Lists everything that is more than before. Descriptors and memory, which others in this process have too, and the store's files, which have their size only
    /// after many rounds, are compared if the test is `alone`.
    pub fn grown_since(&self, before: &Self, alone: bool) -> Vec<String> {
        let mut grown = vec![];
        for (what, count) in &self.keys {
            let had = before.keys.get(what).copied().unwrap_or_default();
            if *count > had {
                grown.push(format!("keys of {what}: {had}, then {count}"));
            }
        }
        let mut compare = |what: &str, before: u64, after: u64, allowed: u64| {
            if after > before + allowed {
                grown.push(format!("{what}: {before}, then {after}"));
            }
        };
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        compare("files of agents", count(before.agent_files), count(self.agent_files), 0);
        compare("guests, containers and volumes", count(before.on_hosts), count(self.on_hosts), 0);
        // Requests that are on their way.
        compare("tasks", count(before.tasks), count(self.tasks), 16);
        if alone {
            // The log is copied into the database at 8 MiB; a page of the database may be half full.
            compare("bytes of the store", before.store_bytes, self.store_bytes, (16 << 20) + before.store_bytes / 10);
            compare("descriptors", count(before.descriptors), count(self.descriptors), 4);
            // What the allocator keeps.
            let allowed = (32 << 20) + before.resident_bytes / 10;
            compare("bytes of memory", before.resident_bytes, self.resident_bytes, allowed);
        }
        grown
    }
}

impl Platform {
    /// Makes a resource group with machines, disks and a service, changes them, and removes all of it; returns when nothing of it is left.
    ///
    /// # Panics
    /// If the API refuses, or something does not come or go.
    pub async fn come_and_go(&self, group: &str) {
        let spec = ResourceGroupSpec { organization: "local".into(), display_name: None };
        self.create(&ResourceGroup::new(group, spec)).await;
        self.until::<ResourceGroup>(group, "Ready", HasConditions::is_ready).await;
        for tag in ["v1", "v2"] {
            self.images().push(&format!("{group}/hello:{tag}"), "65532");
        }
        let within = In { client: self.admin_in(group), group };
        for name in ["a", "b", "c"] {
            within.create(&disk(name, IMAGE)).await;
        }
        within.create(&blank_disk("d", 1)).await;
        within.create(&placement_group("spread")).await;
        let mut member = virtual_machine("a", &["a", "d"]);
        member.spec.placement_group = Some("spread".into());
        within.create(&member).await;
        within.create(&virtual_machine("b", &["b"])).await;
        within.create(&service("web", &format!("{group}/hello:v1"))).await;
        within.until::<VirtualMachine>("a", HasConditions::is_ready).await;
        within.until::<VirtualMachine>("b", HasConditions::is_ready).await;
        within.until::<Service>("web", HasConditions::is_ready).await;

        within.patch::<VirtualMachine>("b", &json!({"spec": {"running": false}})).await;
        let image = format!("registry.{DOMAIN}/{group}/hello:v2");
        within
            .patch::<Service>("web", &json!({"spec": {"template": {"spec": {"containers": [{"image": image}]}}}}))
            .await;
        within.until::<VirtualMachine>("b", |vm| vm.reason() == "Stopped").await;
        within.until::<Service>("web", |it| it.is_ready() && serving(it) == Some("web-00002")).await;
        within.delete::<VirtualMachine>("b").await;
        within.delete::<Disk>("c").await;
        within.gone::<VirtualMachine>("b").await;
        within.gone::<Disk>("c").await;

        self.delete::<ResourceGroup>(group).await;
        self.gone::<ResourceGroup>(group).await;
    }

    /// How much there is of everything; waits until nothing is written and has the store forget the past.
    ///
    /// # Panics
    /// If something cannot be read.
    pub async fn sizes(&self) -> Sizes {
        self.at_rest().await;
        let (store, folder) = self.store();
        let revision = store.revision().await.expect("a revision");
        store.compact(revision).await.expect("the store forgets the past");
        let page = store.range(RangeRequest::new(KeyRange::all())).await.expect("all keys");
        let mut keys = BTreeMap::new();
        for item in page.items {
            let key = String::from_utf8_lossy(&item.key).into_owned();
            let parts = if key.starts_with("/o/") { 4 } else { 3 };
            let of = key.split('/').take(parts).collect::<Vec<_>>().join("/");
            if !EXPIRE.contains(&of.as_str()) {
                *keys.entry(of).or_default() += 1;
            }
        }
        let (mut agent_files, mut on_hosts) = (0, 0);
        for host in self.hosts() {
            agent_files += files(host.state()).0;
            on_hosts += host.machines().len() + host.replicas().len() + host.volumes().await.len();
        }
        Sizes {
            keys,
            store_bytes: files(&folder).1,
            agent_files,
            on_hosts,
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default(),
            resident_bytes: resident(),
        }
    }
}

/// The operator in one resource group.
struct In<'a> {
    client: Client,
    group: &'a str,
}

impl In<'_> {
    fn api<K: ApiOf>(&self) -> Api<K> {
        K::api(self.client.clone())
    }

    async fn create<K: ApiOf>(&self, object: &K) {
        let created = self.api::<K>().create(&PostParams::default(), object).await;
        created.map(drop).unwrap_or_else(|error| panic!("create {}: {error}", object.name_any()));
    }

    async fn patch<K: ApiOf>(&self, name: &str, patch: &Value) {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).unwrap_or_else(|error| panic!("patch {name}: {error}"));
    }

    async fn delete<K: ApiOf>(&self, name: &str) {
        let deleted = self.api::<K>().delete(name, &DeleteParams::default()).await;
        deleted.map(drop).unwrap_or_else(|error| panic!("delete {name}: {error}"));
    }

    async fn until<K: ApiOf>(&self, name: &str, is_so: impl Fn(&K) -> bool) {
        let (api, is_so) = (self.api::<K>(), &is_so);
        eventually(&format!("{} {name} of {} as wanted", K::kind(&()), self.group), || {
            let api = api.clone();
            async move {
                match api.get(name).await {
                    Ok(object) if is_so(&object) => Ok(()),
                    Ok(object) => Err(describe(&object)),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await;
    }

    async fn gone<K: ApiOf>(&self, name: &str) {
        let api = self.api::<K>();
        eventually(&format!("{} {name} of {} deleted", K::kind(&()), self.group), || {
            let api = api.clone();
            async move { api.get_opt(name).await.map_err(|e| e.to_string())?.map_or(Ok(()), |o| Err(describe(&o))) }
        })
        .await;
    }
}

/// The number of files and folders below a folder, and their bytes.
fn files(folder: &Path) -> (usize, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        sum.0 += 1;
        sum.1 += metadata.len();
        if metadata.is_dir() {
            let below = files(&entry.path());
            sum = (sum.0 + below.0, sum.1 + below.1);
        }
    }
    sum
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    line.unwrap_or_default() * 1024
}
