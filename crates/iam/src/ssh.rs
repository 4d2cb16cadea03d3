//! SSH key pairs (Ed25519, no passphrase) in OpenSSH's own format, so that no `ssh-keygen` is needed.
//!
//! Format: `PROTOCOL.key` of OpenSSH. A private key file holds the public key, too; [`public_line_of`] takes it from there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

const KIND: &[u8] = b"ssh-ed25519";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// Cipher block size of an unencrypted key: the private part is padded to it.
const BLOCK: usize = 8;

/// A key pair as the texts of its two files.
#[derive(Clone, PartialEq, Eq)]
pub struct SshKeyPair {
    /// `id_ed25519`.
    pub private: String,
    /// `id_ed25519.pub`, one line.
    pub public: String,
}

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an SSH key: the system gave no random numbers")]
pub struct NoRandom;

/// Makes a key pair; `comment` must be one line of text.
pub fn generate(comment: &str) -> Result<SshKeyPair, NoRandom> {
    let random = SystemRandom::new();
    let mut seed = [0u8; 32];
    let mut check = [0u8; 4];
    random.fill(&mut seed).and_then(|()| random.fill(&mut check)).map_err(|_| NoRandom)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoRandom)?;
    let public = pair.public_key().as_ref();

    let mut blob = Vec::new();
    put(&mut blob, KIND);
    put(&mut blob, public);

    let mut secret = Vec::new();
    secret.extend(check);
    secret.extend(check);
    put(&mut secret, KIND);
    put(&mut secret, public);
    put(&mut secret, &[&seed[..], public].concat());
    put(&mut secret, comment.as_bytes());
    let padding = (BLOCK - secret.len() % BLOCK) % BLOCK;
    secret.extend((1..=padding).map(|byte| byte as u8));

    let mut file = MAGIC.to_vec();
    put(&mut file, b"none");
    put(&mut file, b"none");
    put(&mut file, b"");
    file.extend(1u32.to_be_bytes());
    put(&mut file, &blob);
    put(&mut file, &secret);

    let encoded = STANDARD.encode(file);
    let mut private = format!("{BEGIN}\n");
    for line in encoded.as_bytes().chunks(70) {
        private.push_str(&String::from_utf8_lossy(line));
        private.push('\n');
    }
    private.push_str(END);
    private.push('\n');
    Ok(SshKeyPair { private, public: line(&blob, comment) })
}

/// The public line that belongs to a private key file; `None` when it is not an OpenSSH Ed25519 key.
pub fn public_line_of(private: &str, comment: &str) -> Option<String> {
    let body: String = private.trim().strip_prefix(BEGIN)?.strip_suffix(END)?.split_whitespace().collect();
    let bytes = STANDARD.decode(body).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    for _ in 0..3 {
        take(&mut rest)?;
    }
    rest = rest.get(4..)?;
    let blob = take(&mut rest)?;
    let mut inner = blob;
    if take(&mut inner)? != KIND || take(&mut inner)?.len() != 32 || !inner.is_empty() {
        return None;
    }
    Some(line(blob, comment))
}

fn line(blob: &[u8], comment: &str) -> String {
    format!("ssh-ed25519 {} {comment}\n", STANDARD.encode(blob))
}

fn put(into: &mut Vec<u8>, value: &[u8]) {
    into.extend((value.len() as u32).to_be_bytes());
    into.extend_from_slice(value);
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(from.get(..4)?.try_into().ok()?) as usize;
    let value = from.get(4..4 + length)?;
    *from = &from[4 + length..];
    Some(value)
}
