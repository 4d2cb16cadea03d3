//! Whether user data references the SSH keys of the API: only then do they reach an account.
//!
//! By itself, cloud-init gives them to the image's default user whatever the user data says. The seed of a machine with user data of its own
//! prevents that (vendor data with `allow_public_ssh_keys: false`) unless the user data lists `default` among its `users`. Two
//! other references need nothing from the seed: a template with `ds.meta_data.public_keys` or `v1.public_ssh_keys`, and
//! `allow_public_ssh_keys: true`, because user data has precedence over vendor data.

use super::{GZIP, base64, gunzip};

const NAMES: [&str; 3] = ["public_ssh_keys", "public_keys", "public-keys"];

/// Whether user data, given as the guest gets it, references the keys in any way.
pub fn references_keys(user_data: &[u8]) -> bool {
    texts(user_data).iter().any(|text| names_keys(text)) || lists_default_user(user_data)
}

/// Whether user data, given as the guest gets it, lists the image's default user. What an `#include` would fetch is not known.
pub fn lists_default_user(user_data: &[u8]) -> bool {
    texts(user_data).iter().any(|text| has_users(text) && lines(text).any(has_default_entry))
}

/// The text of user data, then those of parts of a MIME message that are encoded.
fn texts(user_data: &[u8]) -> Vec<String> {
    let content = if user_data.starts_with(&GZIP) { gunzip(user_data) } else { None };
    let text = String::from_utf8_lossy(content.as_deref().unwrap_or(user_data)).into_owned();
    let parts = encoded_parts(&text);
    [vec![text], parts].concat()
}

/// The texts of paragraphs that are base64, as Python's `email` writes the parts of a message.
fn encoded_parts(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with("--") {
            paragraphs.push(String::new());
        } else if let Some(paragraph) = paragraphs.last_mut() {
            paragraph.push_str(line);
        }
    }
    let decoded = paragraphs.iter().filter_map(|paragraph| {
        let bytes = base64(paragraph)?;
        let bytes = if bytes.starts_with(&GZIP) { gunzip(&bytes)? } else { bytes };
        String::from_utf8(bytes).ok()
    });
    decoded.collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#'))
}

fn names_keys(text: &str) -> bool {
    lines(text).any(|line| NAMES.iter().any(|name| line.contains(name)))
}

/// Whether YAML, or the subset of it that is JSON, has a key `users`.
fn has_users(text: &str) -> bool {
    let is_users = |part: &str| part.split_once(':').is_some_and(|(key, _)| plain(key) == "users");
    lines(text).any(|line| line.split(['{', ',']).any(is_users))
}

/// Whether a line of YAML has `default` as an entry of a list: `- default`, `[default, …]`, or alone in a list that began earlier.
fn has_default_entry(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default();
    let is_default = |text: &str| plain(text) == "default";
    let in_block = line.trim_start().strip_prefix('-').is_some_and(is_default);
    let in_flow = line.split_once('[').is_some_and(|(_, list)| list.split([',', '[', ']']).any(is_default));
    in_block || in_flow || is_default(line.trim_end_matches([',', ']', ' ']))
}

fn plain(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '"', '\''])
}
