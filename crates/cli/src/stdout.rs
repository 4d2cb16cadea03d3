//! Standard output that can end before the process does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Whether [`Stdout`] can be closed while the process goes on.
pub const CAN_END: bool = cfg!(unix);

/// Standard output. Shutting it down closes it: a reader at the other end of a pipe sees the end of the stream, while input may
/// still be read.
pub struct Stdout(tokio::io::Stdout);

impl Stdout {
    /// The process's standard output.
    pub fn new() -> Self {
        Self(tokio::io::stdout())
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(context))?;
        Poll::Ready(close())
    }
}

/// Puts a file that discards everything in the place of standard output, which closes what was there.
#[cfg(unix)]
fn close() -> io::Result<()> {
    let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&nowhere)?)
}

/// Without descriptors the stream ends with the process.
#[cfg(not(unix))]
fn close() -> io::Result<()> {
    Ok(())
}
