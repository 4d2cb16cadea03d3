//! The targets of log lines.
//!
//! Roles write to standard error, which is their log file. The supervisor writes to its own file, whatever its terminal is, because the
//! terminal may go away; [`SupervisorLog::reopen`] lets the file be rotated.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Variable that sets the filter of the log (`debug`, `evrocd=trace,info`).
pub const FILTER: &str = "EVROC_LOG";

fn filter() -> EnvFilter {
    EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// For a role: standard error.
pub fn init_role(_role: &str) {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(true)
        .try_init();
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
