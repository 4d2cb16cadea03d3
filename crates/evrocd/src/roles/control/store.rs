//! Chooses the store in which control keeps its state.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use evroc_metrics::Registry;
use evroc_store::embedded::EmbeddedStore;
use evroc_store::etcd::{self, Address, EtcdStore};
use evroc_store::{MeasuredStore, Revision, Store};
use serde::{Deserialize, Serialize};

/// An etcd that holds the state, instead of the embedded store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdSettings {
    /// `etcd://HOST:PORT[,…][/PREFIX]`.
    pub address: String,
    /// The authority of the members' certificates; without it there is no TLS.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The certificate to show to them.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl EtcdSettings {
    fn options(&self, instance: &str) -> anyhow::Result<etcd::Options> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let options = etcd::Options::new(self.address.parse()?).instance(instance);
        let Some(ca) = &self.ca else { return Ok(options) };
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        Ok(options.tls(etcd::Tls { ca: read(ca)?, identity }))
    }

    /// Whether both name a member and a prefix in common.
    pub fn is_same_cluster(&self, other: &Self) -> bool {
        let (Ok(one), Ok(other)) = (self.address.parse::<Address>(), other.address.parse::<Address>()) else {
            return false;
        };
        one.prefix() == other.prefix() && one.endpoints().iter().any(|member| other.endpoints().contains(member))
    }

    /// Opens the store exclusively, creating an empty one if none exists.
    pub async fn open(&self, opener: Opener<'_>) -> anyhow::Result<EtcdStore> {
        Ok(self.options(opener.instance)?.home(opener.control).open().await?)
    }

    /// Makes a store whose counter begins at `base`, for an instance that may have another one open.
    pub async fn create(&self, instance: &str, base: Revision) -> anyhow::Result<EtcdStore> {
        Ok(self.options(instance)?.create(base).await?)
    }

    /// Opens the store to read it, also while its cloud runs.
    pub async fn open_to_read(&self, instance: &str) -> anyhow::Result<EtcdStore> {
        Ok(self.options(instance)?.open_to_read().await?)
    }
}

/// On whose behalf a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opener<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// The folder of its control role, which exists once: the holder of its lock is that instance.
    pub control: &'a Path,
}

/// Returns the path of an instance's embedded store, below the folder of control.
pub fn embedded_folder(control: &Path) -> PathBuf {
    control.join("store")
}

/// Opens the store that the settings name.
pub async fn open(etcd: Option<&EtcdSettings>, opener: Opener<'_>) -> anyhow::Result<Arc<dyn Store>> {
    let measured = Registry::process();
    let store: Arc<dyn Store> = match etcd {
        Some(etcd) => Arc::new(etcd.open(opener).await.context("cannot open the store")?),
        None => {
            let store = EmbeddedStore::open(embedded_folder(opener.control)).await.context("cannot open the store")?;
            store.measure(measured);
            Arc::new(store)
        }
    };
    Ok(Arc::new(MeasuredStore::new(store, measured)))
}
