//! The subcommands for people.

mod down;
pub mod monitoring;
pub mod pki;
mod purge;
pub mod store;
mod up;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::cli::{DoctorArgs, Output, ReportArgs};
use crate::instance::{InstanceName, InstanceRecord, Layout, STATE_ROOT};
use crate::status::report::RoleState;

pub use down::down;
pub use up::up;

/// `evrocd status`: code 0 when the cloud runs and every role is ready, 3 when it does not run, 4 when it runs but not all is ready.
pub fn status(arguments: &ReportArgs) -> anyhow::Result<ExitCode> {
    let instance = &arguments.instance.instance;
    let Some(overview) = crate::status::gather::gather(instance)? else {
        match arguments.output {
            Output::Json => say!("{}", serde_json::json!({"instance": instance.as_str(), "state": "absent"})),
            Output::Text => say!("there is no instance {instance}; `evrocd up --detach` makes one"),
        }
        return Ok(ExitCode::from(3));
    };
    match arguments.output {
        Output::Json => say!("{}", serde_json::to_string_pretty(&overview)?),
        Output::Text => say!("{}", crate::status::text::text(&overview).trim_end()),
    }
    let all_ready =
        overview.supervisor.as_ref().map(|status| status.roles.values().all(|role| role.state == RoleState::Ready));
    Ok(ExitCode::from(match all_ready {
        Some(true) => 0,
        Some(false) => 4,
        None => 3,
    }))
}

/// `evrocd doctor`: code 1 when something does not work.
pub fn doctor(arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let findings = crate::doctor::examine(&arguments.state_dir_root);
    match arguments.output {
        Output::Json => say!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Text => say!("{}", crate::doctor::text(&findings).trim_end()),
    }
    let has_failure = findings.iter().any(|finding| finding.level == crate::doctor::Level::Failure);
    Ok(if has_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `evrocd image import`.
pub fn import(instance: &InstanceName, dir: &Path) -> anyhow::Result<ExitCode> {
    require_root("image import")?;
    let layout = match InstanceRecord::load(instance)? {
        Some(record) => record.layout(),
        None => Layout::new(instance, Path::new(STATE_ROOT)),
    };
    let images = layout.images();
    if !images.is_dir() {
        bail!(
            "instance {instance} was never started: run `evrocd up --instance {instance} --image-dir {}`",
            dir.display()
        );
    }
    let notes = crate::image::import_all(&images, dir)?;
    if notes.is_empty() {
        say!("nothing to do: every image in {} exists already", dir.display());
    }
    notes.iter().for_each(|note| say!("{note}"));
    Ok(ExitCode::SUCCESS)
}

/// `evrocd shim`: becomes the parent of one guest or container.
pub fn shim(dir: &Path) -> anyhow::Result<ExitCode> {
    evroc_node::shim::run(dir).with_context(|| format!("shim of {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// `evrocd unpack`: confines itself and unpacks one image layer from standard input.
pub fn unpack(job: &str) -> anyhow::Result<ExitCode> {
    evroc_node::container::unpack::run(job).context("write the outcome")?;
    Ok(ExitCode::SUCCESS)
}

/// Goes on as root: an ordinary user's command is executed again by sudo, which asks for a password where it wants one.
fn require_root(what: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let program = std::env::current_exe().context("find this program")?;
    let mut again = std::process::Command::new("sudo");
    // sudo has a PATH of its own and drops the environment.
    again.arg("env");
    for name in ["PATH", "RUST_LOG", "EVROC_INSTANCE"] {
        again.args(std::env::var(name).map(|value| format!("{name}={value}")));
    }
    let error = again.arg(program).args(std::env::args_os().skip(1)).exec();
    bail!("`evrocd {what}` needs root, and sudo cannot be executed ({error}): run it as root")
}
