//! The errors of images.

use std::io;
use std::path::{Path, PathBuf};

use crate::container::digest::Digest;
use crate::container::fetch::FetchError;
use crate::container::unpack::UnpackError;
use crate::container::user::UserError;

/// The reason why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry does not have it, or could not be reached.
    #[error("fetch {what} of image {image:?}")]
    Fetch {
        /// As the user wrote it.
        image: String,
        /// The part.
        what: String,
        /// The cause.
        #[source]
        source: FetchError,
    },
    /// The transfer broke off.
    #[error("receive {what} of image {image:?}")]
    Receive {
        /// As the user wrote it.
        image: String,
        /// The part.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The received bytes differ from the requested ones.
    #[error("{what} of image {image:?} is damaged: expected {expected}, found {found}")]
    Mismatch {
        /// As the user wrote it.
        image: String,
        /// The part.
        what: String,
        /// Digest or size that the image promises.
        expected: String,
        /// The received digest.
        found: String,
    },
    /// A part that does not mean anything.
    #[error("{what} of image {image:?} is not valid: {problem}")]
    Invalid {
        /// As the user wrote it.
        image: String,
        /// The part.
        what: String,
        /// The fault.
        problem: String,
    },
    /// It is for another kind of machine.
    #[error("image {image:?} is for {found}: evroc Run needs linux/amd64; build it with `--platform linux/amd64`")]
    Platform {
        /// As the user wrote it.
        image: String,
        /// Its platforms.
        found: String,
    },
    /// It would run as root, or as a user that it does not have.
    #[error("image {image:?} {source}")]
    User {
        /// As the user wrote it.
        image: String,
        /// Not a source: its text completes the sentence.
        source: UserError,
    },
    /// A layer cannot be unpacked.
    #[error("unpack layer {layer} of image {image:?}")]
    Unpack {
        /// As the user wrote it.
        image: String,
        /// The layer's digest.
        layer: Digest,
        /// The cause.
        #[source]
        source: UnpackError,
    },
    /// The host's disk.
    #[error("{operation} {}", path.display())]
    Disk {
        /// The operation.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// Whether only another image helps: trying again is useless.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => !source.is_transient(),
            Self::Receive { .. } | Self::Disk { .. } => false,
            Self::Mismatch { .. } | Self::Invalid { .. } | Self::Platform { .. } | Self::User { .. } => true,
            Self::Unpack { source, .. } => source.is_permanent(),
        }
    }
}

pub(super) fn disk(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> ImageError + use<> {
    let path = path.to_owned();
    move |source| ImageError::Disk { operation, path: path.clone(), source }
}
