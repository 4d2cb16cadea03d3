//! The installation's own certificate authority: one ECDSA P-256 key and one self-signed certificate of ten years.
//!
//! First start writes `ca.key`, then `ca.crt`, then the public copy. The states after an interruption, and their repair:
//!
//! | ca.key | ca.crt | public copy | at the next start |
//! |---|---|---|---|
//! | - | - | - | a new authority is made |
//! | yes | - | - | finished: the certificate is made again from the key (same subject, same key identifier) |
//! | yes | - | matches | finished: the copy is taken back |
//! | yes | yes | any | kept; the copy is written when it differs |
//! | - | one of the two | | refused: without the key nothing can be issued, and only the user knows whether there is a backup |
//! | damaged, or of another certificate | | | refused, naming the file |

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::files::{self, FileError};

/// Life of the authority's certificate. Shorter: every kubeconfig and trust store has to be renewed with it. Longer than the
/// installation's life is of no use.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far back a certificate's life starts: bridges clocks that are a little apart.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);

/// The reason why the authority could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate exists, its key does not.
    #[error(
        "the certificate authority is incomplete: {} is missing, but {} is there; put the key back from a backup, or remove {} as well to get a new authority (kubeconfig files made so far stop working)",
        missing.display(), present.display(), present.display()
    )]
    KeyMissing {
        /// The private key's place.
        missing: PathBuf,
        /// The existing certificate.
        present: PathBuf,
    },
    /// A file exists but cannot be parsed.
    #[error(
        "{} is damaged ({reason}); put it back from a backup, or remove the folder's ca.key and ca.crt and the public copy to get a new authority (kubeconfig files made so far stop working)",
        path.display()
    )]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// Key and certificate do not belong together.
    #[error(
        "{} does not belong to {}; put back the pair that belongs together, or remove both and the public copy to get a new authority (kubeconfig files made so far stop working)",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The private key's place.
        key: PathBuf,
        /// The certificate's place.
        certificate: PathBuf,
    },
    /// Making a key or certificate failed.
    #[error("cannot make the certificate authority")]
    Make(#[source] rcgen::Error),
}

/// The paths of the authority's files.
#[derive(Debug, Clone)]
pub struct AuthorityPaths {
    /// Private key, readable only by the user that issues certificates.
    pub key: PathBuf,
    /// Certificate beside the key.
    pub certificate: PathBuf,
    /// Copy of the certificate that everybody may read; a list, in which those of other authorities may stand too.
    pub public_copy: PathBuf,
}

/// A loaded certificate authority.
pub struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authority")
    }
}

impl Authority {
    /// Opens the authority, finishes one that was left half made, or makes a new one.
    ///
    /// Returns the authority and a sentence for each thing that had to be made or repaired. All files belong to the caller. `label` (the
    /// instance's name) is part of the subject.
    pub fn open_or_create(
        paths: &AuthorityPaths,
        label: &str,
        now: SystemTime,
    ) -> Result<(Self, Vec<String>), AuthorityError> {
        let mut notes = Vec::new();
        let key_bytes = files::read_if_exists(&paths.key)?;
        let certificate_bytes = files::read_if_exists(&paths.certificate)?;
        let copy_bytes = files::read_if_exists(&paths.public_copy)?;

        let key = match key_bytes {
            Some(bytes) => parse_key(&paths.key, &bytes)?,
            None => {
                for (path, bytes) in [(&paths.certificate, &certificate_bytes), (&paths.public_copy, &copy_bytes)] {
                    if bytes.is_some() {
                        return Err(AuthorityError::KeyMissing { missing: paths.key.clone(), present: path.clone() });
                    }
                }
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
                files::write_atomic(&paths.key, key.serialize_pem().as_bytes(), 0o600, None)?;
                notes.push(format!(
                    "made a certificate authority in {}",
                    paths.key.parent().unwrap_or(Path::new("/")).display()
                ));
                key
            }
        };

        let certificate_pem = match certificate_bytes {
            Some(bytes) => {
                let pem = check_pair(&key, &paths.key, &paths.certificate, &bytes)?;
                if !copy_bytes.is_some_and(|copy| contains(&copy, &pem)) {
                    files::write_atomic(&paths.public_copy, pem.as_bytes(), 0o644, None)?;
                    notes.push(format!("wrote {}", paths.public_copy.display()));
                }
                pem
            }
            None => {
                let copy = copy_bytes.as_deref().and_then(|bytes| of_the_key(&key, bytes));
                let pem = match copy {
                    Some(pem) => pem,
                    None => self_sign(&key, label, now)?,
                };
                if notes.is_empty() {
                    notes.push(format!(
                        "finished a certificate authority that was left half made: wrote {}",
                        paths.certificate.display()
                    ));
                }
                files::write_atomic(&paths.certificate, pem.as_bytes(), 0o644, None)?;
                if !copy_bytes.is_some_and(|copy| contains(&copy, &pem)) {
                    files::write_atomic(&paths.public_copy, pem.as_bytes(), 0o644, None)?;
                }
                pem
            }
        };
        Ok((Self::from_parts(certificate_pem, key)?, notes))
    }

    /// Loads an authority from PEM texts.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Make)?;
        Self::from_parts(certificate_pem.to_owned(), key)
    }

    fn from_parts(certificate_pem: String, key: KeyPair) -> Result<Self, AuthorityError> {
        let certificate_der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| AuthorityError::Make(rcgen::Error::CouldNotParseCertificate))?;
        let issuer = Issuer::from_ca_cert_der(&certificate_der, key).map_err(AuthorityError::Make)?;
        Ok(Self { issuer, certificate_pem, certificate_der })
    }

    /// The authority's certificate as PEM, as it goes into kubeconfig files and `certs.d`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate as DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }
}

fn parse_key(path: &Path, bytes: &[u8]) -> Result<KeyPair, AuthorityError> {
    let damaged = |reason: String| AuthorityError::Damaged { path: path.to_owned(), reason };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| damaged("expected a PEM private key, found bytes that are not text".into()))?;
    KeyPair::from_pem(text).map_err(|error| damaged(format!("expected a PEM private key: {error}")))
}

/// Whether a list of certificates has this one.
fn contains(list: &[u8], pem: &str) -> bool {
    std::str::from_utf8(list).is_ok_and(|list| list.contains(pem.trim_end()))
}

/// The certificate in a list that carries `key`'s public half.
fn of_the_key(key: &KeyPair, list: &[u8]) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let list = std::str::from_utf8(list).ok()?;
    list.split_inclusive(END).find_map(|one| {
        let one = format!("{}\n", one.trim());
        check_pair(key, Path::new(""), Path::new(""), one.as_bytes()).ok()
    })
}

/// The certificate's PEM when it is one and carries `key`'s public half.
fn check_pair(key: &KeyPair, key_path: &Path, path: &Path, bytes: &[u8]) -> Result<String, AuthorityError> {
    let damaged = |reason: String| AuthorityError::Damaged { path: path.to_owned(), reason };
    let der = CertificateDer::from_pem_slice(bytes)
        .map_err(|error| damaged(format!("expected a PEM certificate: {error}")))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der)
        .map_err(|error| damaged(format!("expected an X.509 certificate: {error}")))?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(AuthorityError::Mismatch { key: key_path.to_owned(), certificate: path.to_owned() });
    }
    if !certificate.is_ca() {
        return Err(damaged("expected a certificate authority's certificate, found one of a server or client".into()));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| damaged("expected PEM text".into()))
}

fn self_sign(key: &KeyPair, label: &str, now: SystemTime) -> Result<String, AuthorityError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "evroc");
    // A part of the key's digest keeps the authorities of two installations apart in a browser's or system's trust store.
    let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    let suffix: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    name.push(DnType::CommonName, format!("evroc {label} {suffix}"));
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + unix.saturating_sub(BACKDATE);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + unix + AUTHORITY_LIFE;
    Ok(params.self_signed(key).map_err(AuthorityError::Make)?.pem())
}
