//! Replaces the authority and the token key by new ones while both the old and the new are trusted.
//!
//! ```text
//!  begin     Prepare      Publish           Switch               Reissue           end
//! ───────► new keys ──► trust both ──► the new ones sign ──► new certificates ───────► the old stay trusted until their date
//! ```
//! The marker `rotation.json` names the stage. Each stage can be carried out again, so a rotation that was interrupted at any point is
//! finished by repeating its stage and those after it. No process uses a new certificate before all trust its authority (Publish), and
//! none loses trust in an old one before all use new ones (Reissue).
//!
//! | file, in the authority's folder | content |
//! |---|---|
//! | `ca.key`, `ca.crt` | the authority that signs |
//! | `next.key`, `next.crt` | the one that will, from Prepare to Switch |
//! | `retired.json` | certificates of former authorities, and until when they are trusted |
//! | `rotation.json` | the stage, while a rotation is under way |

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError, AuthorityPaths};
use crate::files::{self, FileError, Owner};
use crate::token::{RetiredKey, TokenError, TokenKey};

/// How long tokens of a former key are good: the longest life of a token (a day), and time for clocks that differ.
const TOKENS_LIVE: Duration = Duration::from_secs(25 * 3600);

/// The reason why a rotation failed. It goes on where it was when it is begun again.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The new authority could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The new token key could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A file of ours cannot be understood.
    #[error("{} is damaged: put it back from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: serde_json::Error,
    },
}

/// The next stage to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Make the new authority and the new token key.
    Prepare,
    /// Have everybody trust both authorities.
    Publish,
    /// Put the new keys in the place of the old ones.
    Switch,
    /// Replace every certificate that the old authority signed, and have it loaded.
    Reissue,
}

impl Stage {
    /// All stages, in their order.
    pub const ALL: [Self; 4] = [Self::Prepare, Self::Publish, Self::Switch, Self::Reissue];

    /// The stage after this one; `None` after the last.
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().skip_while(|stage| *stage != self).nth(1)
    }
}

/// A rotation that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The next stage to carry out.
    pub stage: Stage,
    /// How long the old authority stays trusted after the switch.
    pub overlap_seconds: u64,
    /// When it was begun: seconds since 1970.
    pub begun: u64,
    /// Whether it stops before the switch until it is begun again, so that people can bring the list of trusted authorities to machines
    /// that are not ours.
    #[serde(default)]
    pub is_held: bool,
}

impl Rotation {
    /// Whether the next stage is to be carried out now.
    pub fn goes_on(&self) -> bool {
        !(self.is_held && self.stage == Stage::Switch)
    }
}

/// A former authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retired {
    /// Its certificate, as PEM.
    pub certificate: String,
    /// Until when it is trusted: seconds since 1970.
    pub until: u64,
}

/// The files of an installation's keys.
#[derive(Debug, Clone)]
pub struct PkiFiles {
    /// The authority's folder.
    pub authority: PathBuf,
    /// The list of trusted authorities, for everybody.
    pub trusted: PathBuf,
    /// The folder of the token key.
    pub token: PathBuf,
    /// The user that reads the token key.
    pub token_owner: Option<Owner>,
}

impl PkiFiles {
    /// The files of the authority that signs.
    pub fn signing(&self) -> AuthorityPaths {
        AuthorityPaths {
            key: self.authority.join("ca.key"),
            certificate: self.authority.join("ca.crt"),
            public_copy: self.trusted.clone(),
        }
    }

    /// The key that signs tokens.
    pub fn token_key(&self) -> PathBuf {
        self.token.join("token.key")
    }

    /// Public keys of former token keys.
    pub fn retired_tokens(&self) -> PathBuf {
        self.token.join("token-retired.json")
    }

    /// The certificate of the authority that will sign, while there is one.
    pub fn next_certificate(&self) -> PathBuf {
        self.next("crt")
    }

    fn next(&self, extension: &str) -> PathBuf {
        self.authority.join("next").with_extension(extension)
    }

    fn next_token(&self) -> PathBuf {
        self.authority.join("next-token.key")
    }

    fn marker(&self) -> PathBuf {
        self.authority.join("rotation.json")
    }

    fn retired_file(&self) -> PathBuf {
        self.authority.join("retired.json")
    }

    /// The rotation that is under way, if any.
    pub fn rotation(&self) -> Result<Option<Rotation>, RotationError> {
        read_json(&self.marker())
    }

    /// Former authorities, also those that are not trusted any more but still listed.
    pub fn retired(&self) -> Result<Vec<Retired>, RotationError> {
        Ok(read_json(&self.retired_file())?.unwrap_or_default())
    }

    /// Public keys of former token keys.
    pub fn retired_keys(&self) -> Result<Vec<RetiredKey>, RotationError> {
        read_retired_keys(&self.retired_tokens())
    }

    /// Begins a rotation, or returns the one that is under way. One that is held goes on once it is begun without.
    pub fn begin(&self, overlap: Duration, is_held: bool, now: SystemTime) -> Result<Rotation, RotationError> {
        if let Some(mut rotation) = self.rotation()? {
            if rotation.is_held && !is_held {
                rotation.is_held = false;
                self.mark(&rotation)?;
            }
            return Ok(rotation);
        }
        let rotation =
            Rotation { stage: Stage::Prepare, overlap_seconds: overlap.as_secs(), begun: unix(now), is_held };
        self.mark(&rotation)?;
        Ok(rotation)
    }

    /// Takes note that the stage of `rotation` is done: the next one follows, or the end.
    pub fn finish_stage(&self, mut rotation: Rotation) -> Result<Option<Rotation>, RotationError> {
        match rotation.stage.next() {
            Some(stage) => {
                rotation.stage = stage;
                self.mark(&rotation)?;
                Ok(Some(rotation))
            }
            None => {
                remove(&self.marker())?;
                Ok(None)
            }
        }
    }

    fn mark(&self, rotation: &Rotation) -> Result<(), RotationError> {
        let bytes = serde_json::to_vec(rotation).unwrap_or_default();
        Ok(files::write_atomic(&self.marker(), &bytes, 0o600, None)?)
    }

    /// Stage Prepare: makes the next authority and token key where there are none.
    pub fn prepare(&self, label: &str, now: SystemTime) -> Result<(), RotationError> {
        let paths = AuthorityPaths {
            key: self.next("key"),
            certificate: self.next("crt"),
            public_copy: self.authority.join("next-public.crt"),
        };
        Authority::open_or_create(&paths, label, now)?;
        TokenKey::open_or_create(&self.next_token(), self.token_owner)?;
        Ok(())
    }

    /// Stage Switch: the next keys take the place of the present ones, which are remembered as retired. Must come before anybody opens the
    /// authority: an interruption leaves a key and a certificate that do not belong together, and a repetition joins them.
    pub fn switch(&self, rotation: &Rotation, now: SystemTime) -> Result<(), RotationError> {
        let (next_key, next_certificate) = (self.next("key"), self.next("crt"));
        let signing = self.signing();
        if next_certificate.exists() {
            // The certificate moves last: it is the old one until then.
            if let Some(bytes) = files::read_if_exists(&signing.certificate)? {
                let certificate = String::from_utf8_lossy(&bytes).into_owned();
                let mut retired = self.retired()?;
                if retired.iter().all(|known| known.certificate != certificate) {
                    retired.push(Retired { certificate, until: unix(now) + rotation.overlap_seconds });
                    self.write_retired(&retired)?;
                }
            }
            rename(&next_key, &signing.key)?;
            rename(&next_certificate, &signing.certificate)?;
        }
        remove(&self.authority.join("next-public.crt"))?;
        if self.next_token().exists() {
            let mut retired = self.retired_keys()?;
            let (key, _) = TokenKey::open_or_create(&self.token_key(), self.token_owner)?;
            let key = key.retired(unix(now) + TOKENS_LIVE.as_secs());
            retired.retain(|known| known.until > unix(now) && known.public_key != key.public_key);
            retired.push(key);
            let bytes = serde_json::to_vec(&retired).unwrap_or_default();
            files::write_atomic(&self.retired_tokens(), &bytes, 0o600, self.token_owner)?;
            rename(&self.next_token(), &self.token_key())?;
        }
        Ok(())
    }

    fn write_retired(&self, retired: &[Retired]) -> Result<(), RotationError> {
        let bytes = serde_json::to_vec(retired).unwrap_or_default();
        Ok(files::write_atomic(&self.retired_file(), &bytes, 0o600, None)?)
    }

    /// Writes the list of trusted authorities if it is another one: the one that signs, the next one, and former ones until their date,
    /// which lasts at least as long as the rotation. Returns whether it was written, and whether one of the list is not trusted any more.
    pub fn publish(&self, now: SystemTime) -> Result<Published, RotationError> {
        let rotation = self.rotation()?;
        let mut retired = self.retired()?;
        let known = retired.len();
        if rotation.is_none() {
            retired.retain(|one| one.until > unix(now));
        }
        let mut list = Vec::new();
        let signing = files::read_if_exists(&self.signing().certificate)?;
        let next = match &rotation {
            Some(Rotation { stage: Stage::Publish | Stage::Switch, .. }) => files::read_if_exists(&self.next("crt"))?,
            _ => None,
        };
        for bytes in [signing, next].into_iter().flatten() {
            list.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        list.extend(retired.iter().map(|one| one.certificate.clone()));
        let mut text = String::new();
        for (index, one) in list.iter().enumerate() {
            // The retired one is the signing one for a moment.
            if !list[..index].contains(one) {
                text.push_str(one.trim_end());
                text.push('\n');
            }
        }
        let before = files::read_if_exists(&self.trusted)?.unwrap_or_default();
        let changed = before != text.as_bytes();
        if changed {
            files::write_atomic(&self.trusted, text.as_bytes(), 0o644, None)?;
        }
        if retired.len() < known {
            self.write_retired(&retired)?;
        }
        Ok(Published {
            text,
            changed,
            ended: retired.len() < known,
            next_end: retired.iter().map(|one| one.until).min(),
        })
    }
}

/// The result of [`PkiFiles::publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The trusted authorities' certificates, as PEM.
    pub text: String,
    /// Whether the list changed.
    pub changed: bool,
    /// Whether the trust in one has ended.
    pub ended: bool,
    /// When the trust in the next one ends: seconds since 1970.
    pub next_end: Option<u64>,
}

/// Reads the public keys of former token keys.
pub fn read_retired_keys(path: &Path) -> Result<Vec<RetiredKey>, RotationError> {
    Ok(read_json(path)?.unwrap_or_default())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RotationError> {
    let Some(bytes) = files::read_if_exists(path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| RotationError::Damaged { path: path.to_owned(), source })
}

/// Moves a file, unless that was done before.
fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("rename", from, error)),
        _ => files::sync_folder(to.parent().unwrap_or(Path::new("."))),
    }
}

fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
        _ => files::sync_folder(path.parent().unwrap_or(Path::new("."))),
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
