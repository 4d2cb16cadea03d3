//! Uploads: content on its way to a digest.
//!
//! ```text
//! begin ──> [file in uploads/] ── append* ──> finish: digest verified, synced, renamed, linked to the repository
//!                 └── cancel, an hour without use, restart: removed
//! ```
//! The digest is computed while the file is written, so finishing does not read the content again (unless it is asked for SHA-512). The
//! state of an upload lives in memory only: after a restart, clients begin again. No file is open between two requests, and the
//! number of uploads is bounded, for each tenant and in total: an upload that was begun takes one of its owner's places and no descriptor.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
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

/// An unused upload is removed after this time. Shorter breaks clients that pause, longer keeps the
/// disk full of what broken ones left.
const EXPIRY: Duration = Duration::from_secs(3600);

/// The most uploads of one tenant (the first part of the repository's name) at a time. Too low refuses machines that push many layers at
/// once; too high lets one tenant fill the disk with unfinished uploads.
const MOST_PER_TENANT: usize = 64;
/// The most uploads in all. Too low lets a few tenants keep others from pushing; too high costs memory (about 300 bytes each).
const MOST: usize = 2048;

pub(crate) type Sessions = HashMap<Uuid, Arc<Session>>;

/// One upload.
pub(crate) struct Session {
    pub id: Uuid,
    pub repository: Repository,
    /// The uid of the tenant that began it.
    owner: String,
    /// Held by the request that is sending content: two at once would mix theirs.
    pub sending: Arc<tokio::sync::Mutex<()>>,
    upload: Mutex<Upload>,
}

struct Upload {
    path: PathBuf,
    size: u64,
    hasher: Sha256,
    last_used: Instant,
    /// Finished or cancelled; late writes of an abandoned request change nothing.
    ended: bool,
}

impl Session {
    /// Returns the number of bytes received.
    pub fn size(&self) -> u64 {
        lock(&self.upload).size
    }

    /// Adds content at the end. After an error the upload is as it was before.
    pub fn append(&self, content: &[Bytes]) -> Result<(), RegistryError> {
        let mut upload = lock(&self.upload);
        if upload.ended {
            return Err(unknown(&self.id.to_string()));
        }
        let failed = |error| RegistryError::io(format!("write upload {}", self.id), error);
        let file = File::options().write(true).open(&upload.path).map_err(failed)?;
        let mut offset = upload.size;
        for piece in content {
            file.write_all_at(piece, offset).map_err(failed)?;
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
    /// Begins an upload into a repository of `owner`.
    pub fn begin_upload(&self, repository: &Repository, owner: &str) -> Result<Arc<Session>, RegistryError> {
        self.expire_uploads(EXPIRY);
        let id = Uuid::new_v4();
        let path = self.root.join("uploads").join(id.to_string());
        let session = Arc::new(Session {
            id,
            repository: repository.clone(),
            owner: owner.to_owned(),
            sending: Arc::default(),
            upload: Mutex::new(Upload {
                path: path.clone(),
                size: 0,
                hasher: Sha256::new(),
                last_used: Instant::now(),
                ended: false,
            }),
        });
        {
            let mut sessions = lock(&self.sessions);
            check_room(&sessions, repository)?;
            sessions.insert(id, session.clone());
        }
        if let Err(error) = File::options().write(true).create_new(true).open(&path) {
            lock(&self.sessions).remove(&id);
            return Err(RegistryError::io(format!("create {}", path.display()), error));
        }
        Ok(session)
    }

    /// Returns the upload with this id, if it was begun into this repository.
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

    /// Makes an upload a blob of its repository if it has this digest. Otherwise the upload is removed.
    pub fn finish_upload(&self, session: &Session, digest: &Digest) -> Result<(), RegistryError> {
        let referring = self.referring();
        Storage::check_owner(&referring, &session.repository, &session.owner)?;
        let mut upload = lock(&session.upload);
        if upload.ended {
            return Err(unknown(&session.id.to_string()));
        }
        lock(&self.sessions).remove(&session.id);
        let failed = |error| RegistryError::io(format!("finish upload {}", session.id), error);
        let found = match digest.algorithm() {
            Algorithm::Sha256 => Digest::from_hash(Algorithm::Sha256, &upload.hasher.clone().finalize()),
            Algorithm::Sha512 => File::open(&upload.path).and_then(|mut file| sha512(&mut file)).map_err(failed)?,
        };
        if found != *digest {
            end(&mut upload).map_err(failed)?;
            return Err(RegistryError::new(
                Code::DigestInvalid,
                format!("content of {} bytes has digest {found}, expected {digest}: upload it again", upload.size),
            ));
        }
        File::open(&upload.path).and_then(|file| file.sync_all()).map_err(failed)?;
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
        self.cancel_all(expired, "upload expired");
    }

    /// Removes the uploads into all repositories below `name`.
    pub(super) fn cancel_uploads(&self, name: &str) {
        let theirs =
            lock(&self.sessions).values().filter(|session| tenant(&session.repository) == name).cloned().collect();
        self.cancel_all(theirs, "upload of a former tenant cancelled");
    }

    fn cancel_all(&self, sessions: Vec<Arc<Session>>, why: &str) {
        for session in sessions {
            match self.cancel_upload(&session) {
                Ok(()) => tracing::info!(upload = %session.id, repository = %session.repository, "{why}"),
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
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_hash(Algorithm::Sha512, &hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Refuses another upload when the tenant or the registry has too many.
fn check_room(sessions: &Sessions, repository: &Repository) -> Result<(), RegistryError> {
    let tenant = tenant(repository);
    let own = sessions.values().filter(|session| self::tenant(&session.repository) == tenant).count();
    let problem = if own >= MOST_PER_TENANT {
        format!("{tenant} has {own} unfinished uploads, expected at most {MOST_PER_TENANT}")
    } else if sessions.len() >= MOST {
        format!("the registry has {MOST} unfinished uploads")
    } else {
        return Ok(());
    };
    Err(RegistryError::new(
        Code::TooManyRequests,
        format!("{problem}: finish or cancel some, or try again later; unused ones are removed after an hour"),
    ))
}

fn tenant(repository: &Repository) -> &str {
    repository.first_component()
}

fn unknown(id: &str) -> RegistryError {
    RegistryError::new(
        Code::BlobUploadUnknown,
        format!("no upload {id} into this repository: it was finished, cancelled or interrupted; begin a new one"),
    )
}
