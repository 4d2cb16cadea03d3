//! The NoCloud seed: a small vfat disk labelled `CIDATA` from which cloud-init (or anything like it) takes what makes a guest this
//! guest. Same input, same bytes: a seed can be made again at any time.

#[cfg(test)]
mod tests;

use std::io::{self, Cursor, Write};

use base64::Engine as _;
use serde_json::json;
use thiserror::Error;

/// The user that stock images give to people.
pub const GUEST_USER: &str = "evroc-user";
/// Volume label; cloud-init takes `cidata` in either case.
const LABEL: &[u8; 11] = b"CIDATA     ";
/// The size of an ordinary seed.
const LEAST_BYTES: usize = 1 << 20;
/// The space that the file system itself needs beside the files.
const OVERHEAD_BYTES: usize = 128 << 10;

/// The facts that a guest learns about itself from its seed disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedInput {
    /// Changes when the guest shall take itself for a new one: the virtual machine's uid.
    pub instance_id: String,
    /// The guest's host name.
    pub hostname: String,
    /// SSH public keys. Given to the guest as meta-data; they reach an account by the generated user data, or by what the user's
    /// own user data makes of them.
    pub authorized_keys: Vec<String>,
    /// The user's own user data: plain text or base64.
    pub user_data: Option<String>,
}

/// The seed could not be made.
#[derive(Debug, Error)]
#[error("make a seed disk of {bytes} bytes")]
pub struct SeedError {
    bytes: usize,
    #[source]
    source: io::Error,
}

/// The bytes of the seed disk.
pub fn build(input: &SeedInput) -> Result<Vec<u8>, SeedError> {
    let user_data = user_data(input);
    let meta_data = meta_data(input);
    let bytes = (user_data.len() + meta_data.len() + OVERHEAD_BYTES).next_multiple_of(LEAST_BYTES);
    let files = [("meta-data", &meta_data), ("user-data", &user_data)];
    write_vfat(bytes, &files, volume_id(&input.instance_id)).map_err(|source| SeedError { bytes, source })
}

/// The user's own, unchanged, or what sets up [`GUEST_USER`].
pub fn user_data(input: &SeedInput) -> Vec<u8> {
    match &input.user_data {
        Some(text) if !text.is_empty() => decode(text),
        _ => generated(input).into_bytes(),
    }
}

fn meta_data(input: &SeedInput) -> Vec<u8> {
    let document = json!({
        "instance-id": input.instance_id,
        "local-hostname": input.hostname,
        "public-keys": input.authorized_keys,
    });
    let mut text = document.to_string().into_bytes();
    text.push(b'\n');
    text
}

/// User data comes as plain text or as base64 of it, and does not say which. It is base64 if it decodes to something that is user
/// data, and is not user data as it stands.
fn decode(text: &str) -> Vec<u8> {
    let compact: String = text.split_ascii_whitespace().collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(compact).ok();
    decoded
        .filter(|decoded| !is_user_data(text.as_bytes()) && is_user_data(decoded))
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

/// By the first bytes that cloud-init goes by: `#cloud-config`, `#!`, `#include`, `## template:`, MIME, gzip.
fn is_user_data(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let is_mime = [&b"content-type:"[..], b"mime-version:"]
        .iter()
        .any(|header| bytes.get(..header.len()).is_some_and(|start| start.eq_ignore_ascii_case(header)));
    is_mime || bytes.starts_with(b"#") || bytes.starts_with(&[0x1f, 0x8b])
}

/// JSON strings are YAML strings, so no key can break out of its line.
fn generated(input: &SeedInput) -> String {
    let mut text = format!(
        "#cloud-config\n\
         users:\n\
         - name: {GUEST_USER}\n  \
           gecos: evroc user\n  \
           shell: /bin/bash\n  \
           sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n  \
           lock_passwd: true\n"
    );
    if !input.authorized_keys.is_empty() {
        text.push_str("  ssh_authorized_keys:\n");
        for key in &input.authorized_keys {
            text.push_str(&format!("  - {}\n", json!(key.trim())));
        }
    }
    text.push_str("ssh_pwauth: false\ndisable_root: true\n");
    text
}

/// Any number will do, as long as the same guest gets the same one.
fn volume_id(instance_id: &str) -> u32 {
    instance_id.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn write_vfat(size: usize, files: &[(&str, &Vec<u8>)], volume_id: u32) -> io::Result<Vec<u8>> {
    let mut disk = vec![0; size];
    let options = fatfs::FormatVolumeOptions::new().volume_label(*LABEL).volume_id(volume_id);
    fatfs::format_volume(Cursor::new(&mut disk[..]), options)?;
    let file_system =
        fatfs::FileSystem::new(Cursor::new(&mut disk[..]), fatfs::FsOptions::new().update_accessed_date(false))?;
    for (name, content) in files {
        let mut file = file_system.root_dir().create_file(name)?;
        file.write_all(content)?;
        file.flush()?;
    }
    file_system.unmount()?;
    Ok(disk)
}
