//! Signed bearer tokens: JWS compact form, ES256 (ECDSA P-256 with SHA-256), and nothing else.
//!
//! Strict on purpose: the header has exactly `alg`, `kid` and optionally `typ`; the algorithm is never taken from the token; the audience
//! must match; the clock is an argument. A verifier holds several keys, so that a signing key can be replaced while old tokens live.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, Owner};
use crate::identity::{EXTRA_CERTIFICATE_SERIAL, EXTRA_SCOPE, EXTRA_TOKEN_ID, GROUP_AUTHENTICATED, Identity};

/// Longest token that is looked at, in bytes. Tokens travel in a header, of which servers take 8 to 16 KiB in all.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Audience of the tokens that the API takes.
pub const API_AUDIENCE: &str = "api";

/// How far apart clocks may be, in seconds.
const LEEWAY_SECONDS: i64 = 30;

/// The reason why a token was refused, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not three base64url parts of JSON, or a header that is not allowed.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// The header names a key that this verifier does not have.
    #[error("the token was signed with an unknown key")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the token has expired; request a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks")]
    NotYetValid,
    /// Its audience is another.
    #[error("the token is for {found:?}, expected {expected:?}")]
    Audience {
        /// The audience of the token.
        found: String,
        /// The audience that checks it.
        expected: String,
    },
    /// The key's file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key's file is damaged.
    #[error("{path} is not a P-256 private key in PEM; remove it to get a new one (tokens made so far stop working)")]
    Key {
        /// The key's place.
        path: String,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random numbers")]
    Random,
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer: the installation.
    pub iss: String,
    /// Subject: the user.
    pub sub: String,
    /// Audience: the one service that takes this token, for example `registry`.
    pub aud: String,
    /// End of life, seconds since 1970.
    pub exp: i64,
    /// Start of life, seconds since 1970.
    pub nbf: i64,
    /// Time of issue, seconds since 1970.
    pub iat: i64,
    /// Unique id.
    pub jti: String,
    /// The user's groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The scopes of the token; empty: everything that the user may do. The audience defines their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
    /// The serial number of the certificate that the token was made with: where that is revoked, the token is worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<String>,
    /// Further claims.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Claims {
    /// Claims for `identity` at `audience`, living for `life` from `now`, and never longer than the credential that the identity came
    /// with: a lost or revoked credential is worth nothing after its end, whatever was made with it before.
    pub fn for_identity(
        identity: &Identity,
        issuer: &str,
        audience: &str,
        now: SystemTime,
        life: Duration,
    ) -> Result<Self, TokenError> {
        let iat = unix(now);
        let mut id = [0u8; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| TokenError::Random)?;
        Ok(Self {
            iss: issuer.to_owned(),
            sub: identity.user.clone(),
            aud: audience.to_owned(),
            exp: identity
                .expires
                .map_or(i64::MAX, |end| end.as_second())
                .min(iat.saturating_add(life.as_secs() as i64)),
            nbf: iat,
            iat,
            jti: URL_SAFE_NO_PAD.encode(id),
            groups: identity.groups.iter().filter(|group| *group != GROUP_AUTHENTICATED).cloned().collect(),
            scope: Vec::new(),
            made_with: identity.extra.get(EXTRA_CERTIFICATE_SERIAL).and_then(|serials| serials.first()).cloned(),
            extra: BTreeMap::new(),
        })
    }

    /// Returns the identity of a verified token.
    pub fn identity(&self) -> Identity {
        let mut identity = Identity::new(self.sub.clone(), self.groups.clone());
        identity.extra.insert(EXTRA_TOKEN_ID.to_owned(), vec![self.jti.clone()]);
        if let Some(serial) = &self.made_with {
            identity.extra.insert(EXTRA_CERTIFICATE_SERIAL.to_owned(), vec![serial.clone()]);
        }
        if !self.scope.is_empty() {
            identity.extra.insert(EXTRA_SCOPE.to_owned(), self.scope.clone());
        }
        identity.expires = Timestamp::from_second(self.exp).ok();
        identity
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
}

/// A signing key.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TokenKey({})", self.id)
    }
}

impl TokenKey {
    /// Reads the key at `path`, or makes one there (mode 0600, given to `owner`). The flag says whether it was made.
    pub fn open_or_create(path: &Path, owner: Option<Owner>) -> Result<(Self, bool), TokenError> {
        let damaged = || TokenError::Key { path: path.display().to_string() };
        if let Some(bytes) = files::read_if_exists(path)? {
            let pem = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
            return Ok((Self::from_pem(pem).ok_or_else(damaged)?, false));
        }
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|_| TokenError::Random)?
            .serialize_pem();
        files::write_atomic(path, pem.as_bytes(), 0o600, owner)?;
        Ok((Self::from_pem(&pem).ok_or_else(damaged)?, true))
    }

    /// Loads a P-256 key from PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &SystemRandom::new())
                .ok()?;
        let id = key_id(pair.public_key().as_ref());
        Some(Self { pair, id })
    }

    /// The key's id (`kid`), derived from the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as an uncompressed point (65 bytes).
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public half, for a verifier of tokens that were made before another key took this one's place.
    pub fn retired(&self, until: u64) -> RetiredKey {
        RetiredKey { public_key: URL_SAFE_NO_PAD.encode(self.public_key()), until }
    }

    /// Signs a token.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let header = Header { alg: "ES256".into(), kid: self.id.clone(), typ: Some("JWT".into()) };
        let part = |value: serde_json::Result<Vec<u8>>| {
            value.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| TokenError::Malformed("claims are not JSON"))
        };
        let input = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(claims))?);
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).map_err(|_| TokenError::Random)?;
        let mut signature = signature.as_ref().to_vec();
        lower(&mut signature);
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn key_id(public_key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(&ring::digest::digest(&ring::digest::SHA256, public_key).as_ref()[..12])
}

/// A key that signs no more, and whose tokens are good until they end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetiredKey {
    /// The public key: an uncompressed point, as base64url.
    pub public_key: String,
    /// Until when its tokens are checked: seconds since 1970.
    pub until: u64,
}

impl RetiredKey {
    /// The key's id, as in tokens.
    pub fn id(&self) -> String {
        key_id(&self.point())
    }

    fn point(&self) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(&self.public_key).unwrap_or_default()
    }
}

/// Checks tokens for one issuer.
#[derive(Debug, Clone)]
pub struct TokenVerifier {
    issuer: String,
    keys: BTreeMap<String, Trusted>,
}

#[derive(Debug, Clone)]
struct Trusted {
    public_key: Vec<u8>,
    /// Seconds since 1970.
    until: i64,
}

impl TokenVerifier {
    /// A verifier that trusts the given keys.
    pub fn new<'a>(issuer: &str, keys: impl IntoIterator<Item = &'a TokenKey>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            keys: keys
                .into_iter()
                .map(|key| (key.id.clone(), Trusted { public_key: key.public_key().to_vec(), until: i64::MAX }))
                .collect(),
        }
    }

    /// The same verifier, which also takes tokens of former keys, each until its date.
    #[must_use]
    pub fn with_retired(mut self, keys: &[RetiredKey]) -> Self {
        for key in keys {
            let trusted = Trusted { public_key: key.point(), until: i64::try_from(key.until).unwrap_or(i64::MAX) };
            // The key that signs has no end.
            self.keys.entry(key.id()).or_insert(trusted);
        }
        self
    }

    /// The claims of a token that is genuine, in time, and for `audience`.
    pub fn verify(&self, token: &str, audience: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Malformed("longer than 8 KiB"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed("expected three parts"));
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("expected base64url"));
        let parsed: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| TokenError::Malformed("expected a header of alg, kid and typ"))?;
        if parsed.alg != "ES256" || parsed.typ.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("jwt")) {
            return Err(TokenError::Malformed("expected algorithm ES256 and type JWT"));
        }
        let key = self.keys.get(&parsed.kid).filter(|key| unix(now) < key.until).ok_or(TokenError::UnknownKey)?;
        let signature = decode(signature)?;
        // Two signatures are equally valid; only one is accepted, so that a token has one text.
        if !is_low(&signature) {
            return Err(TokenError::Signature);
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.public_key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims = serde_json::from_slice(&decode(payload)?)
            .map_err(|_| TokenError::Malformed("expected the registered claims"))?;
        let now = unix(now);
        if claims.exp.saturating_add(LEEWAY_SECONDS) <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.saturating_sub(LEEWAY_SECONDS) > now {
            return Err(TokenError::NotYetValid);
        }
        if claims.aud != audience {
            return Err(TokenError::Audience { found: claims.aud, expected: audience.to_owned() });
        }
        if claims.iss != self.issuer {
            return Err(TokenError::Malformed("issued by another installation"));
        }
        Ok(claims)
    }
}

/// The order of P-256, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// Half of it, rounded down.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Whether `s` of a signature `r, s` is in the lower half: with (r, s) also (r, order - s) is a signature of the same text.
fn is_low(signature: &[u8]) -> bool {
    signature.get(32..).is_some_and(|s| s.len() == 32 && s <= HALF_ORDER.as_slice())
}

/// Puts the signature with the lower `s` in place of the other.
fn lower(signature: &mut [u8]) {
    if signature.len() != 64 || is_low(signature) {
        return;
    }
    let mut borrow = 0;
    for (s, order) in signature[32..].iter_mut().zip(ORDER).rev() {
        let difference = i16::from(order) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = difference.rem_euclid(256) as u8;
    }
}

fn unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}
