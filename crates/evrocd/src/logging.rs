//! The targets of log lines.
//!
//! Roles write to standard error, which is their log file. The supervisor writes to its own file, whatever its terminal is, because the
//! terminal may go away; [`SupervisorLog::reopen`] lets the file be rotated.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use evroc_metrics::spans;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::traces::Export;

/// Variable that sets the filter of the log (`debug`, `evrocd=trace,info`).
pub const FILTER: &str = "EVROC_LOG";

fn filter() -> EnvFilter {
    without_spans(EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info")))
}

fn without_spans(filter: EnvFilter) -> EnvFilter {
    // Spans are for collectors of traces, whatever the level.
    match format!("{}=off", spans::TARGET).parse::<Directive>() {
        Ok(without_spans) => filter.add_directive(without_spans),
        Err(_) => filter,
    }
}

/// For a role: standard error. Spans go to a collector, if there is one, and never into the log.
pub fn init_role(export: Option<&Export>) {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(true)
        .with_filter(filter());
    let _ = tracing_subscriber::registry().with(export.map(Export::layer)).with(log).try_init();
}

/// The supervisor's log: nowhere until [`SupervisorLog::reopen`].
#[derive(Clone, Default)]
pub struct SupervisorLog(Arc<Mutex<Option<File>>>);

impl SupervisorLog {
    /// Installs it as the process's log.
    pub fn init() -> Self {
        let log = Self::default();
        let _ =
            tracing_subscriber::fmt().with_env_filter(filter()).with_writer(log.clone()).with_ansi(false).try_init();
        log
    }

    /// Writes to `file` from now on.
    pub fn reopen(&self, file: File) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }
}

impl<'a> MakeWriter<'a> for SupervisorLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for SupervisorLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_of_the_log_makes_spans() {
        for level in ["info", "trace", "evroc_node=trace,info", "evroc::trace=trace"] {
            let log = tracing_subscriber::fmt::layer()
                .with_writer(io::sink)
                .with_filter(without_spans(EnvFilter::new(level)));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
                assert!(evroc_metrics::span!("request").is_disabled(), "{level}");
                assert_eq!(tracing::trace_span!("other").is_disabled(), level != "trace");
            });
        }
    }
}
