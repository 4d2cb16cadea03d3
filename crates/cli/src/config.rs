//! The cloud, the resource group and the credential to use: a kubeconfig, shared with kubectl.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A cloud that commands are sent to.
pub struct Cloud {
    /// The API.
    pub client: Client,
    /// The resource group's namespace.
    pub namespace: String,
    /// The folder of the instance's own files: SSH key, known hosts.
    pub folder: PathBuf,
    /// The kubeconfig that was read; child processes of the same program are given it.
    pub kubeconfig: PathBuf,
}

impl Cloud {
    /// Reads the kubeconfig; nothing is sent yet.
    pub async fn load(given: Option<PathBuf>, instance: &str, group: Option<String>) -> anyhow::Result<Self> {
        let folder = home()?.join(".evroc").join(instance);
        let kubeconfig = given.unwrap_or_else(|| folder.join("kubeconfig"));
        if !kubeconfig.exists() {
            bail!(
                "there is no kubeconfig at {}: start a cloud with `make run`, or name a kubeconfig with --config",
                kubeconfig.display()
            );
        }
        let parsed =
            Kubeconfig::read_from(&kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("{} is not a usable kubeconfig", kubeconfig.display()))?;
        let namespace = group.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("cannot prepare the connection")?;
        let own = kubeconfig.parent().filter(|parent| parent.join("id_ed25519").exists()).map(Path::to_path_buf);
        Ok(Self { client, namespace, folder: own.unwrap_or(folder), kubeconfig })
    }
}

/// The user's home folder.
pub fn home() -> anyhow::Result<PathBuf> {
    std::env::home_dir().context("the home folder is unknown: set HOME")
}
