//! Reads the metrics of all processes of a cloud, through the API.

use std::time::Instant;

use anyhow::Context;
use evroc_api::infra::Host;
use evroc_metrics::read::{Sample, read};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};

use crate::bootstrap::Caller;
use crate::instance::InstanceName;

/// The metrics of one process.
pub(super) struct Process {
    /// `control`, `node/<host>`, `edge/<host>`.
    pub name: String,
    /// The samples, or the reason why they are not known.
    pub samples: Result<Vec<Sample>, String>,
}

/// The metrics of all processes at one moment.
pub(super) struct Reading {
    /// When.
    pub at: Instant,
    /// Control first, then those of each host.
    pub processes: Vec<Process>,
}

/// Where readings come from.
pub(super) struct Source {
    client: Client,
}

impl Source {
    /// The API of an instance, with the certificate of its operator.
    pub(super) async fn of(instance: &InstanceName) -> anyhow::Result<Self> {
        let path = match std::env::var_os("KUBECONFIG") {
            Some(path) => path.into(),
            None => Caller::current().folder(instance.as_str()).join("kubeconfig"),
        };
        let kubeconfig = Kubeconfig::read_from(&path)
            .with_context(|| format!("cannot read {}: is this the user who started the cloud?", path.display()))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = config.with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Self { client: Client::try_from(config).context("cannot prepare the connection to the API")? })
    }

    /// Reads everything now; a process that does not answer is part of the reading.
    pub(super) async fn read(&self) -> anyhow::Result<Reading> {
        let control = self.text("/metrics").await.map_err(|error| anyhow::anyhow!(error))?;
        let hosts = Api::<Host>::all(self.client.clone()).list(&ListParams::default()).await?;
        let others =
            hosts.items.iter().flat_map(|host| ["node", "edge"].map(|role| format!("{role}/{}", host.name_any())));
        let asking = others.map(|name| async {
            let samples = self.text(&format!("/metrics/{name}")).await;
            Process { name, samples }
        });
        let mut processes = vec![Process { name: "control".into(), samples: Ok(control) }];
        processes.extend(futures::future::join_all(asking).await);
        Ok(Reading { at: Instant::now(), processes })
    }

    async fn text(&self, path: &str) -> Result<Vec<Sample>, String> {
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let text = self.client.request_text(request).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => evroc_controller::chain(&error),
        })?;
        read(&text).map_err(|error| error.to_string())
    }
}
