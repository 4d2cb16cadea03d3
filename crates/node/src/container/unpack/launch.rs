//! The agent's side: starts the confined process, passes the layer in and reads the outcome.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use rustix::fs::{CWD, Mode, XattrFlags, fsetxattr, openat};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::confined::{CPU_SECONDS, Job};
use super::resolve::{FOLDER, reopen};
use super::{Limits, OPAQUE_XATTR, Outcome, UnpackError, Unpacked};
use crate::container::digest::{Digest, Hasher};
use crate::container::fetch::ByteStream;

/// The longest line that the process may write, in bytes: the paths of opaque folders take most of it.
const MAX_OUTCOME: u64 = 4 << 20;

/// How to start the process: a program that calls [`super::run`].
#[derive(Debug, Clone)]
pub struct UnpackLauncher {
    program: PathBuf,
    arguments: Vec<String>,
    user: u32,
}

impl UnpackLauncher {
    /// `program` is called as `program <arguments…> <job>` by root, and becomes `user`.
    pub fn new(program: impl Into<PathBuf>, arguments: &[&str], user: u32) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { program: program.into(), arguments, user }
    }

    /// Uses `evrocd`'s own subcommand.
    pub fn evrocd(program: impl Into<PathBuf>, user: u32) -> Self {
        Self::new(program, &["unpack", "--job"], user)
    }
}

/// The unpacker of layers.
#[derive(Debug, Clone)]
pub enum Unpacker {
    /// A confined process for each layer.
    Process(UnpackLauncher),
    /// This process: for tests of what happens around it.
    #[cfg(test)]
    InProcess,
}

/// The digests and sizes of the bytes that passed through the agent.
#[derive(Debug)]
pub(in crate::container) struct Transferred {
    /// The digest of the bytes as they came.
    pub(in crate::container) digest: Digest,
    /// Their number.
    pub(in crate::container) bytes: u64,
    /// The outcome.
    pub(in crate::container) outcome: Outcome,
}

impl Unpacker {
    /// Unpacks the layer `stream` into the existing, empty folder. All of the stream is read, also where unpacking fails early, but no
    /// more than `max_bytes` of it. Dropping the future ends the process.
    pub(in crate::container) async fn unpack(
        &self,
        stream: ByteStream,
        max_bytes: u64,
        folder: &Path,
        limits: Limits,
    ) -> io::Result<Transferred> {
        match self {
            Self::Process(launcher) => launcher.unpack(stream, max_bytes, folder, limits).await,
            #[cfg(test)]
            Self::InProcess => {
                let mut wire = Vec::new();
                let (digest, bytes) = pass_on(stream, max_bytes, Some(&mut wire)).await?;
                let outcome = super::unpack_layer(&wire[..], folder, limits);
                Ok(Transferred { digest, bytes, outcome })
            }
        }
    }
}

impl UnpackLauncher {
    async fn unpack(
        &self,
        stream: ByteStream,
        max_bytes: u64,
        folder: &Path,
        limits: Limits,
    ) -> io::Result<Transferred> {
        let job = serde_json::to_string(&Job { folder: folder.to_owned(), user: self.user, limits })?;
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .arg(job)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let answer = async {
            let mut line = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_OUTCOME).read_to_end(&mut line).await?;
            }
            io::Result::Ok(line)
        };
        let transfer = async {
            let result = pass_on(stream, max_bytes, stdin.as_mut()).await;
            // The end of the layer, or of what came of it.
            drop(stdin.take());
            result
        };
        let (transferred, line) = tokio::join!(transfer, answer);
        let (line, status) = (line?, child.wait().await?);
        let (digest, bytes) = transferred?;
        let outcome = serde_json::from_slice(&line).unwrap_or_else(|_| Err(died(status)));
        Ok(Transferred { digest, bytes, outcome })
    }
}

/// Copies the stream to `sink` as long as that takes it; returns the digest and number of the stream's bytes.
async fn pass_on(
    mut stream: ByteStream,
    max_bytes: u64,
    mut sink: Option<&mut (impl tokio::io::AsyncWrite + Unpin)>,
) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut bytes) = (Hasher::default(), 0_u64);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        bytes += chunk.len() as u64;
        if bytes > max_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max_bytes} bytes")));
        }
        hasher.update(&chunk);
        if let Some(writer) = &mut sink
            && writer.write_all(&chunk).await.is_err()
        {
            // The process has ended, and its outcome says why.
            sink = None;
        }
    }
    Ok((hasher.finish(), bytes))
}

/// Explains the end of a process without an outcome.
fn died(status: ExitStatus) -> UnpackError {
    match status.signal() {
        Some(libc::SIGXCPU) => {
            UnpackError::TooLarge(format!("unpacking the layer takes more than {CPU_SECONDS} s of processor time"))
        }
        // The allocator aborts when memory runs out.
        Some(libc::SIGABRT | libc::SIGSEGV) => {
            UnpackError::TooLarge("unpacking the layer takes more memory than it may".into())
        }
        _ => UnpackError::Host(format!("the process that unpacks the layer ended: {status}")),
    }
}

/// Sets the attribute of the layer's opaque folders: only root may.
pub(in crate::container) fn seal(folder: &Path, unpacked: &Unpacked) -> io::Result<()> {
    let root = openat(CWD, folder, FOLDER, Mode::empty())?;
    for encoded in &unpacked.opaque {
        let path = STANDARD.decode(encoded).map_err(io::Error::other)?;
        let path = Path::new(OsStr::from_bytes(&path));
        let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_plain {
            return Err(io::Error::other("an opaque folder has a name that leads elsewhere"));
        }
        match reopen(&root, path) {
            Ok(folder) => fsetxattr(&folder, OPAQUE_XATTR, b"y", XattrFlags::empty())?,
            // A later entry put something else in its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
