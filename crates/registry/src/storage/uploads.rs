//! Uploads: content on its way to a digest.
//!
//! ```text
//! begin ──> [file in uploads/] ── append* ──> finish: digest verified, synced, renamed, linked to the repository
//!                 └── cancel, an hour without use, restart: removed
//! ```
//! The digest grows with the file, so finishing does not read the content again (unless it is asked for SHA-512). The
//! state of an upload lives in memory only: after a restart, clients begin again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};
use uuid::Uuid;

use super::{Storage, files, lock};
use crate::error::{Code, RegistryError};
use crate::names::{Algorithm, Digest, Repository};

/// An upload that nobody continues is removed after this time. Shorter breaks clients that pause, longer keeps the
/// disk full of what broken ones left.
const EXPIRY: Duration = Duration::from_secs(3600);

pub(crate) type Sessions = HashMap<Uuid, Arc<Session>>;

/// One upload.
pub(crate) struct Session {
    pub id: Uuid,
    pub repository: Repository,
    /// Held by the request that is sending content: two at once would mix theirs.
    pub sending: Arc<tokio::sync::Mutex<()>>,
    upload: Mutex<Upload>,
}

struct Upload {
    path: PathBuf,
    file: File,
    size: u64,
    hasher: Sha256,
    last_used: Instant,
    /// Finished or cancelled; late writes of an abandoned request change nothing.
    ended: bool,
}

impl Session {
    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        lock(&self.upload).size
    }

    /// Adds content at the end. After an error the upload is as before.
    pub fn append(&self, content: &[Bytes]) -> Result<(), RegistryError> {
        let mut upload = lock(&self.upload);
        if upload.ended {
            return Err(unknown(&self.id.to_string()));
        }
        let mut offset = upload.size;
        for piece in content {
            upload
                .file
                .write_all_at(piece, offset)
                .map_err(|error| RegistryError::io(format!("write upload {}", self.id), error))?;
            offset += piece.len() as u64;
        }
        for piece in content {
            upload.hasher.update(piece);
        }
        upload.size = offset;
        upload.last_used = Instant::now();
        Ok(())
    }
}

impl Storage {
    /// Begins an upload into a repository.
    pub fn begin_upload(&self, repository: &Repository) -> Result<Arc<Session>, RegistryError> {
        self.expire_uploads(EXPIRY);
        let id = Uuid::new_v4();
        let path = self.root.join("uploads").join(id.to_string());
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| RegistryError::io(format!("create {}", path.display()), error))?;
        let session = Arc::new(Session {
            id,
            repository: repository.clone(),
            sending: Arc::default(),
            upload: Mutex::new(Upload {
                path,
                file,
                size: 0,
                hasher: Sha256::new(),
                last_used: Instant::now(),
                ended: false,
            }),
        });
        lock(&self.sessions).insert(id, session.clone());
        Ok(session)
    }

    /// An upload that was begun into this repository.
    pub fn upload(&self, repository: &Repository, id: &str) -> Result<Arc<Session>, RegistryError> {
        let found = Uuid::parse_str(id)
            .ok()
            .and_then(|uuid| lock(&self.sessions).get(&uuid).cloned())
            .filter(|session| session.repository == *repository);
        found.ok_or_else(|| unknown(id))
    }

    /// Removes an upload.
    pub fn cancel_upload(&self, session: &Session) -> Result<(), RegistryError> {
        lock(&self.sessions).remove(&session.id);
        end(&mut lock(&session.upload))
            .map_err(|error| RegistryError::io(format!("remove upload {}", session.id), error))
    }

    /// Makes an upload a blob of its repository if it has this digest. If it has not, the upload is gone.
    pub fn finish_upload(&self, session: &Session, digest: &Digest) -> Result<(), RegistryError> {
        let _referring = self.referring();
        let mut upload = lock(&session.upload);
        if upload.ended {
            return Err(unknown(&session.id.to_string()));
        }
        lock(&self.sessions).remove(&session.id);
        let failed = |error| RegistryError::io(format!("finish upload {}", session.id), error);
        let found = match digest.algorithm() {
            Algorithm::Sha256 => Digest::from_hash(Algorithm::Sha256, &upload.hasher.clone().finalize()),
            Algorithm::Sha512 => sha512(&mut upload.file).map_err(failed)?,
        };
        if found != *digest {
            end(&mut upload).map_err(failed)?;
            return Err(RegistryError::new(
                Code::DigestInvalid,
                format!("content of {} bytes has digest {found}, expected {digest}: upload it again", upload.size),
            ));
        }
        upload.file.sync_all().map_err(failed)?;
        files::place(&upload.path, &self.content(digest))?;
        upload.ended = true;
        self.link_blob(&session.repository, digest)
    }

    /// Removes uploads that were not used for `age`.
    fn expire_uploads(&self, age: Duration) {
        let expired: Vec<_> = {
            let sessions = lock(&self.sessions);
            // One that is locked is being written.
            let is_old = |session: &&Arc<Session>| {
                session.upload.try_lock().is_ok_and(|upload| upload.last_used.elapsed() >= age)
            };
            sessions.values().filter(is_old).cloned().collect()
        };
        for session in expired {
            match self.cancel_upload(&session) {
                Ok(()) => tracing::info!(upload = %session.id, repository = %session.repository, "upload expired"),
                Err(error) => tracing::warn!(upload = %session.id, %error, "upload could not be removed"),
            }
        }
    }
}

fn end(upload: &mut Upload) -> io::Result<()> {
    upload.ended = true;
    files::absent(fs::remove_file(&upload.path)).map(|_| ())
}

fn sha512(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Sha512::new();
    let mut buffer = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_hash(Algorithm::Sha512, &hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

fn unknown(id: &str) -> RegistryError {
    RegistryError::new(
        Code::BlobUploadUnknown,
        format!("no upload {id} into this repository: it was finished, cancelled or interrupted; begin a new one"),
    )
}
