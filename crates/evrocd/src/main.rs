//! evrocd: the server of the evroc cloud.
//!
//! `evrocd up` is the supervisor ([`supervisor`]); it starts the roles ([`roles`]) as processes of this same program. The shim is handed to
//! the node crate before anything else happens in the process.

/// Prints a line. The reader may have ended (`evrocd up | head`): that must stop neither a start nor a stop.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($words)*);
    }};
}

mod bootstrap;
mod cli;
mod commands;
mod definitions;
mod doctor;
mod hosts_block;
mod image;
mod instance;
mod logging;
mod ports;
mod process;
mod roles;
mod sockets;
mod status;
mod supervisor;
mod top;
mod traces;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use roles::Role;

/// Requests are many small pieces of memory with short lives: a fifth of a create's time was the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(arguments) => commands::up(&arguments),
        Command::Down(arguments) => commands::down(&arguments),
        Command::Status(arguments) => commands::status(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Doctor(arguments) => commands::doctor(&arguments),
        Command::Image(cli::ImageCommand::Import { instance, dir }) => commands::import(&instance.instance, &dir),
        Command::Store(command) => match command {
            cli::StoreCommand::Backup { instance, file } => commands::store::backup(&instance.instance, &file),
            cli::StoreCommand::Restore { instance, file, replace } => {
                commands::store::restore(&instance.instance, &file, replace)
            }
            cli::StoreCommand::Migrate { instance, to } => commands::store::migrate(&instance.instance, &to),
        },
        Command::Pki(command) => match command {
            cli::PkiCommand::Status(arguments) => commands::pki::status(&arguments),
            cli::PkiCommand::Rotate { instance, overlap_days, prepare } => {
                commands::pki::rotate(&instance.instance, overlap_days, prepare)
            }
        },
        Command::MonitoringConfig { instance, folder } => commands::monitoring::config(&instance.instance, &folder),
        Command::Version => {
            say!("evrocd {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Control(arguments) => role(Role::Control, &arguments),
        Command::Edge(arguments) => role(Role::Edge, &arguments),
        Command::Node(arguments) => role(Role::Node, &arguments),
        Command::Shim(arguments) => commands::shim(&arguments.dir),
        Command::Unpack(arguments) => commands::unpack(&arguments.job),
        Command::UserFiles => bootstrap::write_for_user(&mut std::io::stdin().lock())
            .map(|()| ExitCode::SUCCESS)
            .map_err(anyhow::Error::from),
    };
    result.unwrap_or_else(|error| {
        eprintln!("evrocd: {error:#}");
        ExitCode::FAILURE
    })
}

fn role(role: Role, arguments: &cli::RoleArgs) -> anyhow::Result<ExitCode> {
    roles::run(role, &arguments.config)?;
    Ok(ExitCode::SUCCESS)
}
