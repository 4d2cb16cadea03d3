//! The cloud, the resource group and the credential to use: a kubeconfig, shared with kubectl.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::util::MapResponseLayer;
use tower::{BoxError, ServiceBuilder};

use crate::warnings;

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
        let client = client(config).context("cannot prepare the connection")?;
        let own = kubeconfig.parent().filter(|parent| parent.join("id_ed25519").exists()).map(Path::to_path_buf);
        Ok(Self { client, namespace, folder: own.unwrap_or(folder), kubeconfig })
    }
}

/// A client as kube makes it, but one whose connections send small pieces at once: with Nagle's algorithm a keystroke or a packet of ssh
/// waits until the one before is acknowledged, and uploads are more than ten times slower. Through a proxy kube's own is used.
fn client(config: Config) -> anyhow::Result<Client> {
    if config.proxy_url.is_some() {
        return Ok(ClientBuilder::try_from(config)?.with_layer(&MapResponseLayer::new(warnings::print)).build());
    }
    let https = config.rustls_https_connector_with_connector(connector(&config))?;
    let connections = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
    let service = ServiceBuilder::new()
        .map_response(warnings::print)
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

fn connector(config: &Config) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    connector
}

/// The user's home folder.
pub fn home() -> anyhow::Result<PathBuf> {
    std::env::home_dir().context("the home folder is unknown: set HOME")
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::net::{TcpListener, TcpStream};
    use tower::Service;

    use super::*;

    #[tokio::test]
    async fn connections_send_small_pieces_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: http::Uri = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut connector = connector(&Config::new(address.clone()));
        let stream: TokioIo<TcpStream> = connector.call(address).await.unwrap();
        assert!(stream.inner().nodelay().unwrap());
    }
}
