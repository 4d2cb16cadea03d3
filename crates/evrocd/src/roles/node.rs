//! `node`: as yet without machines and containers.

use super::{Command, Report, RoleContext};

/// Runs until SIGTERM; answers [`Command::Drain`].
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    context.ready().await;
    let stop = context.stop.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(command) = context.commands.recv() => {
                if let Command::Drain { .. } = command {
                    context.report(Report::Drained { stopped: 0, killed: 0 }).await;
                }
            }
        }
    }
}
