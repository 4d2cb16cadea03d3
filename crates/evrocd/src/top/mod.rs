//! `evrocd top`: what the cloud does now, from the metrics of its processes.
//!
//! [`read`] asks the API for the metrics of every process, [`screen`] is a pure function of two readings, and this module repeats both.

mod figures;
mod read;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::cli::TopArgs;
use read::Source;

/// The time between the two readings of `--once`.
const ONCE: Duration = Duration::from_secs(1);

/// Shows readings until it is interrupted, or one with `--once`.
pub fn top(arguments: &TopArgs) -> anyhow::Result<ExitCode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let source = Source::of(&arguments.instance.instance).await?;
        let pause = if arguments.once { ONCE } else { Duration::from_secs(arguments.interval.into()) };
        let is_terminal = std::io::stdout().is_terminal() && !arguments.once;
        let mut before = source.read().await.context("cannot read the metrics of the cloud")?;
        loop {
            tokio::time::sleep(pause).await;
            // A cloud that is being restarted comes back.
            let text = match source.read().await {
                Ok(now) => {
                    let text = screen::screen(&before, &now);
                    before = now;
                    text
                }
                Err(error) if arguments.once => return Err(error),
                Err(error) => format!("cannot read the metrics of the cloud: {error:#}\n"),
            };
            let mut out = std::io::stdout().lock();
            let written = match is_terminal {
                // To the upper left corner; the rest of each line, and what is below the last, is erased.
                true => write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
                false => writeln!(out, "{}", text.trim_end()),
            };
            match written.and_then(|()| out.flush()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written?,
            }
            if arguments.once {
                return Ok(ExitCode::SUCCESS);
            }
        }
    })
}
