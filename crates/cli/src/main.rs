//! evroc: the command line of the evroc cloud. A client of its API and nothing more.

mod api;
mod commands;
mod config;
mod errors;
mod known_hosts;
mod names;
mod stdout;
mod table;
mod terminal;
mod vm;
mod warnings;
mod websocket;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The evroc cloud from the command line.
#[derive(Parser)]
#[command(name = "evroc", version, arg_required_else_help = true)]
struct Arguments {
    /// The kubeconfig to use [default: $KUBECONFIG, else ~/.evroc/<instance>/kubeconfig]
    #[arg(long, global = true, env = "KUBECONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The instance whose kubeconfig is used when none is given
    #[arg(long, global = true, env = "EVROC_INSTANCE", default_value = "evroc")]
    instance: String,
    /// The resource group [default: the kubeconfig's namespace]
    #[arg(long = "resource-group", visible_alias = "rg", short = 'n', global = true, value_parser = names::parse)]
    resource_group: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Virtual machines and disks
    #[command(subcommand)]
    Compute(commands::compute::Compute),
    /// Serverless containers
    #[command(subcommand)]
    Run(commands::run::Run),
    /// Users, tokens and access
    #[command(subcommand)]
    Iam(commands::iam::Iam),
    /// The container registry
    #[command(subcommand)]
    Registry(commands::registry::Registry),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A process has one provider; a second installation would be a mistake elsewhere and is harmless here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(arguments));
    // A read of the terminal that is under way cannot be cancelled and must not keep the process.
    runtime.shutdown_background();
    match code {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", errors::text(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Version = arguments.command {
        println!("evroc {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    let cloud = config::Cloud::load(arguments.config, &arguments.instance, arguments.resource_group).await?;
    match arguments.command {
        Command::Compute(command) => commands::compute::run(&cloud, command).await,
        Command::Run(command) => commands::run::run(&cloud, command).await.map(|()| ExitCode::SUCCESS),
        Command::Iam(command) => commands::iam::run(&cloud, command).await.map(|()| ExitCode::SUCCESS),
        Command::Registry(command) => commands::registry::run(&cloud, command).await.map(|()| ExitCode::SUCCESS),
        Command::Version => Ok(ExitCode::SUCCESS),
    }
}
