//! The agent's side: starting shims and talking to them.
#![allow(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::files;
use super::protocol::{PROTOCOL_VERSION, Request, Response, Status};
use super::spec::{Exit, PidRecord, Spec};

/// How long a shim may take to start its workload. A hand-over (`runc create`) reads image layers from a cold disk; nothing takes
/// longer than this but a host that is beyond help.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long an answer may take. A shim only ever waits for the disk it logs to.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The reason why a shim could not be started.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum SpawnError {
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start shim {id}: {reason}")]
    Refused { id: String, reason: String },
    #[error("start shim {id}: no answer within {} s", START_LIMIT.as_secs())]
    Late { id: String },
    #[error("start shim {id}: it ended without an answer{}", if stderr.is_empty() { String::new() } else { format!("; it left: {stderr}") })]
    Silent { id: String, stderr: String },
}

/// The reason why a request to a shim failed.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ClientError {
    #[error("{operation} shim {id}")]
    Io {
        operation: &'static str,
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("{operation} shim {id}: {reason}")]
    Refused { operation: &'static str, id: String, reason: String },
    #[error("shim {id} has ended and left no exit.json")]
    Lost { id: String },
}

/// How to start shims: a program that calls [`super::run`].
#[derive(Clone, Debug)]
pub struct ShimLauncher {
    program: PathBuf,
    arguments: Vec<String>,
}

#[derive(Deserialize)]
struct Ready {
    ok: bool,
    #[serde(default)]
    error: String,
}

impl ShimLauncher {
    /// `program` is called as `program <arguments…> --dir <dir>`.
    pub fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self { program: program.into(), arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    /// Shims of `evrocd`.
    pub fn evrocd(program: impl Into<PathBuf>) -> Self {
        Self::new(program, &["shim"])
    }

    /// Writes the spec into `dir` (made if missing), starts a shim there and waits until the workload runs.
    ///
    /// The descriptors named in `spec.inherited_fds` must be open in this process and stay so until this returns. What an
    /// earlier shim left in `dir` is replaced, but for its log; one that still lives makes this fail.
    pub async fn spawn(&self, dir: &Path, spec: &Spec) -> Result<ShimClient, SpawnError> {
        let file = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| SpawnError::File { operation, path, source }
        };
        std::fs::create_dir_all(dir).map_err(file("create", dir))?;
        if let Some(folder) = spec.socket.parent() {
            std::fs::create_dir_all(folder).map_err(file("create", folder))?;
        }
        let id = spec.id.clone();
        if files::is_locked(dir).map_err(file("look at", &dir.join("lock")))? {
            return Err(SpawnError::Refused { id, reason: format!("another shim serves {}", dir.display()) });
        }
        files::write_json(dir, "spec.json", 0o600, spec).map_err(file("write", &dir.join("spec.json")))?;
        let stderr_path = dir.join("shim.err");
        let stderr = std::fs::File::create(&stderr_path).map_err(file("create", &stderr_path))?;

        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments).arg("--dir").arg(dir).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let inherited = spec.inherited_fds.clone();
        // SAFETY: only system calls that are safe after a fork; no allocation, no lock.
        unsafe {
            command.pre_exec(move || {
                for fd in &inherited {
                    if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(file("execute", &self.program))?;
        let stdout = child.stdout.take();
        let answer = tokio::time::timeout(START_LIMIT, async {
            let mut line = String::new();
            if let Some(stdout) = stdout {
                BufReader::new(stdout).read_line(&mut line).await?;
            }
            // The process that was called has forked and ended; collect it.
            child.wait().await?;
            io::Result::Ok(line)
        });
        let line = match answer.await {
            Err(_) => return Err(SpawnError::Late { id }),
            Ok(result) => result.map_err(file("wait for", &self.program))?,
        };
        match serde_json::from_str::<Ready>(&line) {
            Ok(Ready { ok: true, .. }) => {}
            Ok(Ready { error, .. }) => return Err(SpawnError::Refused { id, reason: error }),
            Err(_) => {
                let stderr = std::fs::read_to_string(&stderr_path).unwrap_or_default().trim().to_owned();
                return Err(SpawnError::Silent { id, stderr });
            }
        }
        let record = files::read_json(dir, "pid.json").map_err(file("read", &dir.join("pid.json")))?;
        let record = record.ok_or_else(|| SpawnError::Silent { id, stderr: "no pid.json".into() })?;
        Ok(ShimClient::new(dir, spec, record))
    }
}

/// A living shim. Every question is a connection of its own, so a client can be kept, cloned and dropped freely.
#[derive(Clone, Debug)]
pub struct ShimClient {
    dir: PathBuf,
    socket: PathBuf,
    record: PidRecord,
}

/// The workload's terminal or pipes: reads give its output, writes reach its input.
pub type Attached = BufReader<UnixStream>;

impl ShimClient {
    pub(super) fn new(dir: &Path, spec: &Spec, record: PidRecord) -> Self {
        Self { dir: dir.to_owned(), socket: spec.socket.clone(), record }
    }

    /// Folder of the shim.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The processes, as they were when this client was made.
    pub fn record(&self) -> &PidRecord {
        &self.record
    }

    /// Checks that the shim answers with our protocol.
    pub async fn connect(&self) -> Result<(), ClientError> {
        let (response, _) = self.ask("greet", &Request::Hello).await?;
        match (response.version, response.id) {
            (Some(1..=PROTOCOL_VERSION), Some(id)) if id == self.record.id => Ok(()),
            (version, id) => {
                let reason = format!(
                    "expected protocol 1 to {PROTOCOL_VERSION} and id {}, found {version:?} and {id:?}",
                    self.record.id
                );
                Err(ClientError::Refused { operation: "greet", id: self.record.id.clone(), reason })
            }
        }
    }

    /// Returns the status of the shim and its workload.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let (response, _) = self.ask("ask status of", &Request::Status).await?;
        response.status.ok_or_else(|| self.refused("ask status of", "the answer has no status"))
    }

    /// Sends a signal to the workload (the one process, not its group).
    pub async fn signal(&self, signal: i32) -> Result<(), ClientError> {
        self.ask("signal", &Request::Signal { signal }).await.map(|_| ())
    }

    /// Sets the size of the workload's terminal.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<(), ClientError> {
        self.ask("resize terminal of", &Request::Resize { rows, cols }).await.map(|_| ())
    }

    /// Attaches to the workload's streams; the first bytes are up to `replay_bytes` of its past output.
    pub async fn attach(&self, replay_bytes: usize) -> Result<Attached, ClientError> {
        self.ask("attach to", &Request::Attach { replay_bytes }).await.map(|(_, stream)| stream)
    }

    /// Waits until the workload has ended. [`ClientError::Lost`] if the shim ends without a record.
    pub async fn wait(&self) -> Result<Exit, ClientError> {
        let answer = async {
            let mut stream = self.send(&Request::Wait).await?;
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            io::Result::Ok(serde_json::from_str::<Response>(&line)?.exit)
        };
        if let Ok(Some(exit)) = answer.await {
            return Ok(exit);
        }
        // It may have ended before the request.
        let handle = self.record.shim.open().map_err(|source| self.io("wait for", source))?;
        if let Some(handle) = handle {
            handle.wait().await.map_err(|source| self.io("wait for", source))?;
        }
        let exit = files::read_json(&self.dir, "exit.json").map_err(|source| self.io("read exit.json of", source))?;
        exit.ok_or_else(|| ClientError::Lost { id: self.record.id.clone() })
    }

    /// The same, but not longer than `limit`; `None` if the workload still runs or its end was not recorded.
    pub async fn wait_at_most(&self, limit: Duration) -> Option<Exit> {
        tokio::time::timeout(limit, self.wait()).await.ok()?.ok()
    }

    async fn send(&self, request: &Request) -> io::Result<Attached> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        Ok(BufReader::new(stream))
    }

    async fn ask(&self, operation: &'static str, request: &Request) -> Result<(Response, Attached), ClientError> {
        let exchange = async {
            let mut stream = self.send(request).await?;
            let mut line = Vec::new();
            (&mut stream).take(1 << 20).read_until(b'\n', &mut line).await?;
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            io::Result::Ok((serde_json::from_slice::<Response>(&line)?, stream))
        };
        let answer =
            tokio::time::timeout(ANSWER_LIMIT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (response, stream) = answer.map_err(|source| self.io(operation, source))?;
        if response.ok {
            Ok((response, stream))
        } else {
            Err(self.refused(operation, response.error.as_deref().unwrap_or("no reason given")))
        }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> ClientError {
        ClientError::Io { operation, id: self.record.id.clone(), source }
    }

    fn refused(&self, operation: &'static str, reason: &str) -> ClientError {
        ClientError::Refused { operation, id: self.record.id.clone(), reason: reason.to_owned() }
    }
}
