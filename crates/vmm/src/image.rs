//! Disk files, by way of `qemu-img`.
//!
//! The format is always named, never guessed: a raw disk whose guest writes a qcow2 header into its first sector would otherwise be
//! opened as one, and a header can name any file of the host as its backing or data file.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::process::Command;

use crate::config::DiskFormat;

/// For everything but conversion. Creating, measuring and growing write a few blocks; a disk that needs longer is failing.
const LIMIT: Duration = Duration::from_secs(30);
/// For conversion, which copies whole images.
const CONVERT_LIMIT: Duration = Duration::from_secs(3600);

/// `qemu-img`.
#[derive(Clone, Debug)]
pub struct ImageTool {
    program: PathBuf,
    /// The uid and gid that it runs as; the caller's without them.
    user: Option<(u32, u32)>,
}

/// The properties of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// Size that a guest sees, in bytes.
    pub virtual_size: u64,
    /// Bytes it takes on the host's disk.
    #[serde(default)]
    pub actual_size: u64,
    /// `qcow2` or `raw`.
    pub format: String,
    /// The file beneath it, as the header names it.
    #[serde(default)]
    pub backing_filename: Option<String>,
    /// Properties of a single format.
    #[serde(default)]
    format_specific: Option<FormatSpecific>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct FormatSpecific {
    data: FormatData,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FormatData {
    #[serde(default)]
    data_file: Option<String>,
    #[serde(default)]
    corrupt: bool,
}

/// A failed operation on a disk file.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ImageError {
    #[error("{operation} {}", path.display())]
    Execute {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{operation} {}: {message}", path.display())]
    Failed { operation: &'static str, path: PathBuf, message: String },
    #[error("{operation} {}: not done within {limit:?}", path.display())]
    Late { operation: &'static str, path: PathBuf, limit: Duration },
    #[error("{} is not safe to use: expected {expected}, found {found}", path.display())]
    Unsafe { path: PathBuf, expected: &'static str, found: String },
    #[error("{} cannot shrink: it has {found} bytes, {requested} were requested", path.display())]
    Shrink { path: PathBuf, found: u64, requested: u64 },
}

impl Default for ImageTool {
    /// Returns the path of Debian's package.
    fn default() -> Self {
        Self { program: "/usr/bin/qemu-img".into(), user: None }
    }
}

impl ImageTool {
    /// `program`: absolute path of `qemu-img`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), user: None }
    }

    /// The same program, run as another user: for files whose header a guest's hypervisor could write. Needs root.
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Makes an empty disk at `path`, which must not exist. Takes a few hundred kilobytes at any size.
    pub async fn create_blank(&self, path: &Path, size_bytes: u64) -> Result<(), ImageError> {
        refuse_existing("create", path)?;
        let size = size_bytes.to_string();
        let arguments = ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off,cluster_size=65536"];
        self.run("create", path, LIMIT, |command| command.args(arguments).arg(path).arg(&size)).await.map(drop)
    }

    /// Makes a disk at `path`, which must not exist, that begins as a copy of `base` (qcow2, by an absolute path) and is at least
    /// as big. Nothing is copied.
    pub async fn create_clone(&self, path: &Path, base: &Path, size_bytes: u64) -> Result<(), ImageError> {
        refuse_existing("clone", path)?;
        let size = size_bytes.to_string();
        let arguments = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
        self.run("clone", path, LIMIT, |command| command.args(arguments).arg(base).arg(path).arg(&size)).await.map(drop)
    }

    /// Returns the properties of an image. Opens neither its backing nor its data file. Works while a guest uses it.
    pub async fn info(&self, path: &Path, format: &DiskFormat) -> Result<ImageInfo, ImageError> {
        let format = name(format);
        let output = self
            .run("inspect", path, LIMIT, |command| {
                command.args(["info", "--output=json", "-U", "-f", format]).arg(path)
            })
            .await?;
        serde_json::from_slice(&output).map_err(|error| ImageError::Failed {
            operation: "inspect",
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    /// Grows a disk that no guest uses; growing to its present size does nothing. Refuses a qcow2 header that names any other file than
    /// the backing file of `format`: growing would open that file, for writing if it is a data file. The caller sees to it that
    /// no process writes to the disk meanwhile.
    pub async fn grow(&self, path: &Path, format: &DiskFormat, size_bytes: u64) -> Result<(), ImageError> {
        let info = match format {
            DiskFormat::Raw => self.info(path, format).await?,
            DiskFormat::Qcow2 { backing } => self.check_untrusted(path, backing.as_deref()).await?,
        };
        let found = info.virtual_size;
        if size_bytes < found {
            return Err(ImageError::Shrink { path: path.to_owned(), found, requested: size_bytes });
        }
        if size_bytes == found {
            return Ok(());
        }
        let (format, size) = (name(format), size_bytes.to_string());
        self.run("grow", path, LIMIT, |command| command.args(["resize", "-q", "-f", format]).arg(path).arg(&size))
            .await
            .map(drop)
    }

    /// Copies an image into a new qcow2 file without any backing file.
    pub async fn convert(&self, from: &Path, format: &DiskFormat, to: &Path) -> Result<(), ImageError> {
        refuse_existing("convert to", to)?;
        let format = name(format);
        self.run("convert", from, CONVERT_LIMIT, |command| {
            command.args(["convert", "-q", "-f", format, "-O", "qcow2"]).arg(from).arg(to)
        })
        .await
        .map(drop)
    }

    /// Refuses an image from outside that would make QEMU read or write any other file than itself (and `base`, where given).
    pub async fn check_untrusted(&self, path: &Path, base: Option<&Path>) -> Result<ImageInfo, ImageError> {
        let info = self.info(path, &DiskFormat::Qcow2 { backing: None }).await?;
        let refuse = |expected, found: String| Err(ImageError::Unsafe { path: path.to_owned(), expected, found });
        if let Some(found) = &info.backing_filename
            && base != Some(Path::new(found))
        {
            return refuse("no backing file", format!("backing file {found:?}"));
        }
        if let Some(data) = info.format_specific.as_ref().map(|specific| &specific.data) {
            if let Some(found) = &data.data_file {
                return refuse("no external data file", format!("data file {found:?}"));
            }
            if data.corrupt {
                return refuse("a sound image", "one marked as corrupt".into());
            }
        }
        Ok(info)
    }

    async fn run(
        &self,
        operation: &'static str,
        path: &Path,
        limit: Duration,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Vec<u8>, ImageError> {
        let mut command = Command::new(&self.program);
        command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        if let Some((uid, gid)) = self.user {
            // The working directory need not be readable for that user. As root, `uid` drops the supplementary groups too.
            command.current_dir("/").uid(uid).gid(gid);
        }
        let output = tokio::time::timeout(limit, arguments(&mut command).output());
        let late = |_| ImageError::Late { operation, path: path.to_owned(), limit };
        let output = output.await.map_err(late)?.map_err(|source| ImageError::Execute {
            operation,
            path: path.to_owned(),
            source,
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("qemu-img: ").to_owned();
        Err(ImageError::Failed { operation, path: path.to_owned(), message })
    }
}

fn name(format: &DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 { .. } => "qcow2",
    }
}

/// `qemu-img create` overwrites any existing file.
fn refuse_existing(operation: &'static str, path: &Path) -> Result<(), ImageError> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(ImageError::Failed { operation, path: path.to_owned(), message: "there is a file already".into() })
        }
        Err(source) => Err(ImageError::Execute { operation, path: path.to_owned(), source }),
    }
}
