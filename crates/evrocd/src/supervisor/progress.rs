//! Reports the progress of a start to the starter of the supervisor: lines on the terminal, or on a pipe to `evrocd up --detach`.

use std::fs::File;
use std::io::Write;

use super::protocol::{StartLine, SupervisorStatus};

/// The destination of the messages.
pub enum Progress {
    /// Standard output.
    Terminal,
    /// The waiting parent.
    Pipe(File),
    /// No receiver.
    Silent,
}

impl Progress {
    /// Something was done.
    pub fn note(&mut self, message: impl Into<String>) {
        let message = message.into();
        tracing::info!(note = message);
        match self {
            Self::Terminal => say!("{message}"),
            Self::Pipe(_) => self.send(&StartLine::Note { message }),
            Self::Silent => {}
        }
    }

    /// All roles are ready. Nothing is reported after this.
    pub fn ready(&mut self, status: SupervisorStatus) {
        if matches!(self, Self::Terminal) {
            say!("{}", crate::status::text::summary(&status).trim_end());
        }
        self.send(&StartLine::Ready(Box::new(status)));
        *self = Self::Silent;
    }

    /// The start failed.
    pub fn failed(&mut self, message: &str) {
        self.send(&StartLine::Failed { message: message.to_owned() });
    }

    fn send(&mut self, line: &StartLine) {
        if let Self::Pipe(pipe) = self {
            // The parent may have been interrupted; the start goes on without it.
            let _ = pipe.write_all(crate::roles::link::line(line).as_bytes());
        }
    }
}
