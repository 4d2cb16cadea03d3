//! Controllers for services, revisions and replicas; the autoscaler. The control side, free of any host.
//!
//! A Service makes an immutable Revision for every new version of its template; a Revision has as many Replicas as the
//! autoscaler says; a host's agent runs each. The gateway sends all requests to the newest revision that was ready.

mod context;
pub mod image;
mod names;
mod proven;
mod reasons;
mod revision;
mod service;

pub use context::{RunContext, Settings};
pub use names::{host_name, revision_name};

use std::sync::Arc;

use context::Run;

/// Runs every controller of this crate until the process ends.
pub async fn run(context: RunContext) {
    let context = Arc::new(Run::new(context));
    context.ready().await;
    tokio::join!(service::run(context.clone()), revision::run(context));
}
