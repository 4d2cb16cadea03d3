//! `evroc run`: serverless containers.

use anyhow::Context;
use clap::Subcommand;
use evroc_api::run::Service;
use kube::api::{Api, DeleteParams};

use super::list::List;
use super::logs::{self, GROUP};
use crate::config::Cloud;
use crate::names;

/// The commands of `evroc run`.
#[derive(Subcommand)]
pub enum Run {
    /// List services
    List(List),
    /// Print the output of a service's containers
    Logs {
        /// The service
        #[arg(value_parser = names::parse)]
        name: String,
        /// Go on as more is written
        #[arg(long, short)]
        follow: bool,
        /// Only this many lines from the end
        #[arg(long)]
        tail: Option<u64>,
        /// Only lines since this time, as in 2026-01-02T03:04:05Z
        #[arg(long, value_name = "TIME")]
        since_time: Option<String>,
        /// Begin each line with the time when it was written
        #[arg(long)]
        timestamps: bool,
    },
    /// Delete a service
    Delete {
        /// The service
        #[arg(value_parser = names::parse)]
        name: String,
    },
}

/// Runs a command.
pub async fn run(cloud: &Cloud, command: Run) -> anyhow::Result<()> {
    match command {
        Run::List(list) => list.show(cloud, GROUP, "services").await,
        Run::Logs { name, follow, tail, since_time, timestamps } => {
            let request = logs::Request { service: name, follow, tail, since: since_time, timestamps };
            logs::print(cloud, &request, &mut tokio::io::stdout()).await
        }
        Run::Delete { name } => {
            let services = Api::<Service>::namespaced(cloud.client.clone(), &cloud.namespace);
            services.delete(&name, &DeleteParams::default()).await.map(|_| ()).context("cannot delete the service")
        }
    }
}
