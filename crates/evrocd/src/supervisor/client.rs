//! The command line's side of the supervisor's socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Reply, Request, SupervisorStatus};

/// How long a supervisor gets to answer a status request; it does nothing that takes long.
const ANSWER: Duration = Duration::from_secs(10);

/// Sends a request and hands every line of the answer to `on_reply` until the supervisor closes the connection.
pub fn ask(socket: &Path, request: &Request, mut on_reply: impl FnMut(Reply)) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    if *request == Request::Status {
        stream.set_read_timeout(Some(ANSWER))?;
    }
    stream.write_all(crate::roles::link::line(request).as_bytes())?;
    for line in BufReader::new(stream).lines() {
        if let Ok(reply) = serde_json::from_str(&line?) {
            on_reply(reply);
        }
    }
    Ok(())
}

/// The status of a running supervisor; `None` when none answers.
pub fn status(socket: &Path) -> io::Result<Option<SupervisorStatus>> {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    let mut found = None;
    let result = ask(socket, &Request::Status, |reply| {
        if let Reply::Status(status) = reply {
            found = Some(*status);
        }
    });
    match result {
        Ok(()) => Ok(found),
        // It dies at this moment, or died before.
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe) => Ok(None),
        Err(error) => Err(error),
    }
}
