//! Controllers for services, revisions and replicas; the autoscaler. The control side, free of any host.
//!
//! A Service makes an immutable Revision for every new version of its template; a Revision has as many Replicas as the
//! autoscaler says; a host's agent runs each. The gateway sends all requests to the newest revision that was ready.

pub mod image;
pub mod revision;
pub mod service;

use std::sync::Arc;
use std::time::Duration;

use evroc_controller::Context;

/// What the operator chose for the whole cloud.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Services are answered under `svc-<id>.<domain>`.
    pub domain: String,
    /// The port of the HTTPS gateway; 443 does not show in addresses.
    pub https_port: u16,
    /// How long a revision without requests keeps its last replica. Too low starts containers for every visitor; too
    /// high keeps memory for nobody.
    pub scale_to_zero_after: Duration,
}

/// What the controllers of this crate are given.
#[derive(Clone)]
pub struct RunContext {
    /// API and clock.
    pub base: Context,
    /// The operator's choices.
    pub settings: Settings,
    /// The registry that images are resolved in.
    pub images: Arc<dyn image::Images>,
}

/// Runs every controller of this crate until the process ends.
pub async fn run(context: RunContext) {
    tokio::join!(service::run(context.clone()), revision::run(context));
}
