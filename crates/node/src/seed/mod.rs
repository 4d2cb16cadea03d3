//! The NoCloud seed: a small vfat disk labelled `CIDATA` from which cloud-init (or anything like it) takes what makes a guest this
//! guest. Same input, same bytes: a seed can be made again at any time.

#[cfg(test)]
mod tests;

use std::io::{self, Cursor, Write};

use evroc_api::user_data;
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

/// User data of its own gives keys to an account only where it references them; by itself cloud-init would give them to the
/// image's default user. User data has precedence over vendor data.
const NO_KEYS: &str = "#cloud-config\nallow_public_ssh_keys: false\n";

/// The bytes of the seed disk.
pub fn build(input: &SeedInput) -> Result<Vec<u8>, SeedError> {
    let files = files(input);
    let content: usize = files.iter().map(|(_, content)| content.len()).sum();
    let bytes = (content + OVERHEAD_BYTES).next_multiple_of(LEAST_BYTES);
    write_vfat(bytes, &files, volume_id(&input.instance_id)).map_err(|source| SeedError { bytes, source })
}

/// The files of the seed, by name.
pub fn files(input: &SeedInput) -> Vec<(&'static str, Vec<u8>)> {
    let own = input.user_data.as_deref().filter(|text| !text.is_empty()).map(|text| user_data::decode(text).bytes);
    let has_hidden_keys = !input.authorized_keys.is_empty()
        && own.as_ref().is_some_and(|user_data| !user_data::lists_default_user(user_data));
    let user_data = own.unwrap_or_else(|| generated(input).into_bytes());
    let vendor_data = has_hidden_keys.then(|| ("vendor-data", NO_KEYS.into()));
    [("meta-data", meta_data(input)), ("user-data", user_data)].into_iter().chain(vendor_data).collect()
}

fn meta_data(input: &SeedInput) -> Vec<u8> {
    let keys: Vec<&str> = input.authorized_keys.iter().map(|key| key.trim()).collect();
    let document = json!({
        "instance-id": input.instance_id,
        "local-hostname": input.hostname,
        "public-keys": keys,
    });
    (yaml(&document) + "\n").into_bytes()
}

/// JSON that is YAML as well, as cloud-init reads it. JSON is not always: characters that YAML does not take as they are, DEL, those
/// from U+0080 to U+009F and a few others, make the whole document invalid. All of them have an escape of the same form in both.
fn yaml(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => text.push(character),
        }
    }
    text
}

/// Keys are in quotes, so that none can break out of its line.
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
            text.push_str(&format!("  - {}\n", yaml(&json!(key.trim()))));
        }
    }
    text.push_str("ssh_pwauth: false\ndisable_root: true\n");
    text
}

/// Any number will do, as long as the same guest gets the same one.
fn volume_id(instance_id: &str) -> u32 {
    instance_id.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn write_vfat(size: usize, files: &[(&str, Vec<u8>)], volume_id: u32) -> io::Result<Vec<u8>> {
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
