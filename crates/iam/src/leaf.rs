//! Certificates of servers and clients: issued, checked and renewed.
//!
//! [`ensure`] is the one operation: after it, the two files hold a certificate that fits the [`LeafSpec`], belongs to its key, is signed by
//! the authority and is not due for renewal ([`renewal`]). It writes nothing when that was so already. The key is written first: a crash
//! between the two writes leaves a pair that does not match, which the next call replaces.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::authority::{Authority, BACKDATE};
use crate::files::{self, FileError, Owner};

/// Life of the certificates of servers, hosts and gateways, which are renewed while the installation runs. Longer makes a stolen key good
/// for longer; shorter leaves less than the ten days in which a supervisor that has failed can be noticed and started again.
pub const ROLE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Life of the certificates in operators' kubeconfigs, which people carry to other machines, where they are not renewed: as kubeadm and k3s.
pub const OPERATOR_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// By which part of its life a certificate's renewal may be earlier than at two thirds of it, so that those that were issued together are
/// not renewed together.
const JITTER: i64 = 20;

/// Why a certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name cannot be in a certificate.
    #[error("{name:?} cannot stand in a certificate as a DNS name")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// Making the key or the certificate failed.
    #[error("cannot issue the certificate for {subject}")]
    Issue {
        /// The subject.
        subject: String,
        /// The reason.
        #[source]
        source: rcgen::Error,
    },
}

/// The purpose of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafSpec {
    /// A TLS server that answers to these names and addresses.
    Server {
        /// DNS names, wildcards included.
        names: Vec<String>,
        /// IP addresses.
        addresses: Vec<IpAddr>,
    },
    /// A client: common name = user, organization = group.
    Client {
        /// The user.
        user: String,
        /// The one group that the user is in.
        group: String,
    },
}

impl LeafSpec {
    /// The API server's and the fixed names' certificate: loopback and `api.`, `iam.`, `console.`, `registry.` under `domain`.
    pub fn control_server(domain: &str) -> Self {
        let mut names = vec!["localhost".to_owned()];
        names.extend(FIXED_NAMES.iter().map(|name| format!("{name}.{domain}")));
        Self::Server { names, addresses: loopback() }
    }

    /// The gateway's certificate: every service's name under `domain`, and `domain` itself.
    pub fn gateway_server(domain: &str) -> Self {
        Self::Server { names: vec![format!("*.{domain}"), domain.to_owned()], addresses: Vec::new() }
    }

    /// A client certificate.
    pub fn client(user: impl Into<String>, group: impl Into<String>) -> Self {
        Self::Client { user: user.into(), group: group.into() }
    }

    fn subject(&self) -> String {
        match self {
            Self::Server { names, .. } => names.last().cloned().unwrap_or_else(|| "server".into()),
            Self::Client { user, .. } => user.clone(),
        }
    }
}

/// Names under the domain that are always there, beside those of services.
pub const FIXED_NAMES: [&str; 4] = ["api", "iam", "console", "registry"];

fn loopback() -> Vec<IpAddr> {
    vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]
}

/// A certificate and its key as PEM.
#[derive(Clone)]
pub struct LeafPem {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// Where a certificate and its key are kept.
#[derive(Debug, Clone)]
pub struct LeafPaths {
    /// The certificate, mode 0644.
    pub certificate: PathBuf,
    /// The private key, mode 0600.
    pub key: PathBuf,
}

impl LeafPaths {
    /// `<folder>/<name>.crt` and `<folder>/<name>.key`.
    pub fn in_folder(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
    }
}

/// Issues a certificate in memory that ends after `life`.
pub fn issue(authority: &Authority, spec: &LeafSpec, life: Duration, now: SystemTime) -> Result<LeafPem, LeafError> {
    let fail = |source| LeafError::Issue { subject: spec.subject(), source };
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    match spec {
        LeafSpec::Server { names, addresses } => {
            name.push(DnType::CommonName, spec.subject());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            for dns in names {
                let value = dns.as_str().try_into().map_err(|source| LeafError::Name { name: dns.clone(), source })?;
                params.subject_alt_names.push(SanType::DnsName(value));
            }
            params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        }
        LeafSpec::Client { user, group } => {
            name.push(DnType::OrganizationName, group.as_str());
            name.push(DnType::CommonName, user.as_str());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    params.distinguished_name = name;
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // A short life must not be over at its beginning.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + unix.saturating_sub(BACKDATE.min(life / 10));
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + unix + life;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let certificate = params.signed_by(&key, &authority.issuer).map_err(fail)?;
    Ok(LeafPem { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The result of [`ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// Why a new certificate was issued; `None` when the old one stands.
    pub replaced: Option<String>,
    /// When it is to be looked at again: seconds since 1970.
    pub renewal: i64,
}

/// Makes sure that `paths` hold a good certificate for `spec`; a new one gets `life`.
pub fn ensure(
    authority: &Authority,
    spec: &LeafSpec,
    paths: &LeafPaths,
    owner: Option<Owner>,
    life: Duration,
    now: SystemTime,
) -> Result<Ensured, LeafError> {
    let certificate = files::read_if_exists(&paths.certificate)?;
    let key = files::read_if_exists(&paths.key)?;
    let replaced = match (&certificate, &key) {
        (None, None) => Some("there was none".to_owned()),
        (None, Some(_)) | (Some(_), None) => Some("only one of certificate and key was there".to_owned()),
        (Some(certificate), Some(key)) => why_unfit(authority, spec, certificate, key, now),
    };
    let mut certificate = certificate.unwrap_or_default();
    if replaced.is_some() {
        let pem = issue(authority, spec, life, now)?;
        files::write_atomic(&paths.key, pem.key.as_bytes(), 0o600, owner)?;
        files::write_atomic(&paths.certificate, pem.certificate.as_bytes(), 0o644, owner)?;
        certificate = pem.certificate.into_bytes();
    }
    Ok(Ensured { replaced, renewal: Leaf::read(&certificate).map_or(0, |leaf| leaf.renewal()) })
}

/// The data of a certificate that decide about its renewal, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The subject's common name.
    pub subject: String,
    /// The issuer, in one line.
    pub issuer: String,
    /// Serial number: hexadecimal, lower case.
    pub serial: String,
    /// Start of its life, in seconds since 1970.
    pub not_before: i64,
    /// End of its life, in seconds since 1970.
    pub not_after: i64,
    jitter: u8,
}

impl Leaf {
    /// Reads a certificate in PEM; `None` if it is damaged.
    pub fn read(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(Self::of(&certificate))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let names: Vec<_> = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        Self {
            subject: names.join(", "),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string().replace(':', ""),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            jitter: certificate.raw_serial().last().copied().unwrap_or_default(),
        }
    }

    /// When it is to be renewed: seconds since 1970.
    pub fn renewal(&self) -> i64 {
        renewal(self.not_before, self.not_after, self.jitter)
    }
}

/// The moment at which a certificate is renewed: at two thirds of its life, or earlier by up to a twentieth of it, as `jitter` says,
/// which is a byte of its serial number. All in seconds since 1970.
pub fn renewal(not_before: i64, not_after: i64, jitter: u8) -> i64 {
    let life = (not_after - not_before).max(0);
    not_before + life - life / 3 - life / JITTER * i64::from(jitter) / 255
}

/// Why a stored pair must be replaced; `None` when it is good.
pub fn why_unfit(
    authority: &Authority,
    spec: &LeafSpec,
    certificate_pem: &[u8],
    key_pem: &[u8],
    now: SystemTime,
) -> Option<String> {
    let Ok(der) = CertificateDer::from_pem_slice(certificate_pem) else {
        return Some("the certificate is damaged".into());
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
        return Some("the certificate is damaged".into());
    };
    let Some(key) = std::str::from_utf8(key_pem).ok().and_then(|text| KeyPair::from_pem(text).ok()) else {
        return Some("the key is damaged".into());
    };
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Some("certificate and key do not belong together".into());
    }
    if !signed_by(authority, &certificate) {
        return Some("it was signed by another authority".into());
    }
    if !matches_spec(spec, &certificate) {
        return Some("its names changed".into());
    }
    let leaf = Leaf::of(&certificate);
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    if unix < leaf.not_before || unix >= leaf.renewal() {
        return Some("two thirds of its life were over".into());
    }
    None
}

fn signed_by(authority: &Authority, certificate: &X509Certificate<'_>) -> bool {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    let Ok((_, issuer)) = x509_parser::parse_x509_certificate(authority.certificate_der()) else { return false };
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, issuer.public_key().subject_public_key.data.as_ref())
            .verify(certificate.tbs_certificate.as_ref(), certificate.signature_value.data.as_ref())
            .is_ok()
}

fn matches_spec(spec: &LeafSpec, certificate: &X509Certificate<'_>) -> bool {
    match spec {
        LeafSpec::Server { names, addresses } => {
            let Ok(Some(found)) = certificate.subject_alternative_name() else { return false };
            let mut found_names = Vec::new();
            let mut found_addresses = Vec::new();
            for name in &found.value.general_names {
                match name {
                    GeneralName::DNSName(dns) => found_names.push((*dns).to_owned()),
                    GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                        Ok(four) => found_addresses.push(IpAddr::from(four)),
                        Err(_) => match <[u8; 16]>::try_from(*bytes) {
                            Ok(sixteen) => found_addresses.push(IpAddr::from(sixteen)),
                            Err(_) => return false,
                        },
                    },
                    _ => return false,
                }
            }
            found_names == *names && found_addresses == *addresses
        }
        LeafSpec::Client { user, group } => {
            let text = |attributes: Vec<&str>| attributes.into_iter().map(str::to_owned).collect::<Vec<_>>();
            text(certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect())
                == [user.clone()]
                && text(certificate.subject().iter_organization().filter_map(|name| name.as_str().ok()).collect())
                    == [group.clone()]
        }
    }
}
