//! `evroc run`: serverless containers.

use anyhow::{Context, anyhow};
use clap::Subcommand;
use evroc_api::run::Service;
use http_body_util::BodyExt;
use kube::api::{Api, DeleteParams};
use tokio::io::AsyncWriteExt;

use crate::config::Cloud;
use crate::{api, table};

const GROUP: &str = "run.evroclabs.net";

/// The commands of `evroc run`.
#[derive(Subcommand)]
pub enum Run {
    /// List services
    List {
        /// All columns
        #[arg(long)]
        wide: bool,
    },
    /// Print what a service's containers wrote
    Logs {
        /// The service
        name: String,
        /// Go on as more is written
        #[arg(long, short)]
        follow: bool,
        /// Only so many lines from the end
        #[arg(long)]
        tail: Option<u64>,
    },
    /// Delete a service
    Delete {
        /// The service
        name: String,
    },
}

/// Runs a command.
pub async fn run(cloud: &Cloud, command: Run) -> anyhow::Result<()> {
    match command {
        Run::List { wide } => {
            table::print(&api::table(cloud, &api::path(cloud, GROUP, "services", "")).await?, wide);
            Ok(())
        }
        Run::Logs { name, follow, tail } => {
            let tail = tail.map(|lines| format!("&tailLines={lines}")).unwrap_or_default();
            let path = api::path(cloud, GROUP, "services", &format!("/{name}/log?follow={follow}{tail}"));
            let mut body = api::get(cloud, &path, "*/*").await?.into_body();
            let mut stdout = tokio::io::stdout();
            while let Some(frame) = body.frame().await {
                // The cause is a library's words about a connection; what helps is that it passes.
                let frame = frame
                    .map_err(|_| anyhow!("the log broke off, the cloud or a host may be restarting: try again"))?;
                if let Ok(bytes) = frame.into_data() {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await?;
                }
            }
            Ok(())
        }
        Run::Delete { name } => {
            let services = Api::<Service>::namespaced(cloud.client.clone(), &cloud.namespace);
            services.delete(&name, &DeleteParams::default()).await.map(|_| ()).context("cannot delete the service")
        }
    }
}
