//! `evroc run`: serverless containers.

use anyhow::{Context, bail};
use clap::Subcommand;
use evroc_api::run::Service;
use kube::api::{Api, DeleteParams};
use tokio::sync::Mutex;

use super::list::List;
use super::logs::{self, GROUP};
use crate::config::Cloud;
use crate::names;

/// The commands of `evroc run`.
#[derive(Subcommand)]
pub enum Run {
    /// List services
    List(List),
    /// Print the output of a service's containers, or of all services with these labels
    Logs {
        /// The service
        #[arg(value_parser = names::parse, required_unless_present = "selector")]
        name: Option<String>,
        /// The services with these labels, as in app=shop,tier!=test; those that exist when the command begins
        #[arg(short = 'l', long, conflicts_with = "name")]
        selector: Option<String>,
        /// Begin each line with the service that wrote it
        #[arg(long)]
        prefix: bool,
        /// Refuse to follow more services than this at once
        #[arg(long, value_name = "N", default_value_t = 5, requires = "selector")]
        max_log_requests: usize,
        /// Go on as more is written
        #[arg(long, short)]
        follow: bool,
        /// Only this many lines from the end of each service's log [default: all; 10 with a selector]
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
        Run::Logs { name, selector, prefix, max_log_requests, follow, tail, since_time, timestamps } => {
            let lines = logs::Lines { follow, tail, since: since_time, timestamps, prefix };
            let out = Mutex::new(tokio::io::stdout());
            match (name, selector) {
                (_, Some(selector)) => logs::print_selected(cloud, &selector, max_log_requests, lines, &out).await,
                (Some(service), None) => logs::print(cloud, &service, &lines, &out).await,
                (None, None) => bail!("expected the name of a service, or --selector"),
            }
        }
        Run::Delete { name } => {
            let services = Api::<Service>::namespaced(cloud.client.clone(), &cloud.namespace);
            services.delete(&name, &DeleteParams::default()).await.map(|_| ()).context("cannot delete the service")
        }
    }
}
