//! Arguments that commands have in common.

use clap::Args;

use crate::names;

/// One object.
#[derive(Args)]
pub struct Named {
    /// Its name
    #[arg(value_parser = names::parse)]
    pub name: String,
}

/// A virtual machine that is to be stopped.
#[derive(Args)]
pub struct Power {
    #[command(flatten)]
    pub vm: Named,
    /// Do not ask the guest to power off: what it has not written is lost
    #[arg(long)]
    pub force: bool,
    /// Return before it is done
    #[arg(long)]
    pub no_wait: bool,
    /// How many seconds to wait
    #[arg(long, default_value_t = 180)]
    pub wait_seconds: u64,
}
