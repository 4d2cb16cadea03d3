//! Lines of an `authorized_keys` file, as sshd(8) reads them: `[options] type base64 [comment]`. Any algorithm is allowed, the form is checked.
//!
//! A line that sshd would skip locks its owner out of the guest, so what sshd does not take is refused: a key that was cut short, an
//! option that does not exist, a quote that is not closed.

mod blob;
mod options;
#[cfg(test)]
mod tests;

use base64::Engine;

/// The longest line, in bytes: what OpenSSH takes for one public key (`SSH_MAX_PUBKEY_BYTES`).
pub const LONGEST_BYTES: usize = 16_384;
/// How much of a line a message shows, in characters.
const SHOWN: usize = 40;
const EXAMPLE: &str = "\"ssh-ed25519 AAAA… me@laptop\"";

/// The reason why a line is not an SSH public key.
pub fn problem(line: &str) -> Option<String> {
    let line = line.trim_matches([' ', '\t', '\r', '\n']);
    if line.is_empty() {
        return Some(format!("expected an SSH public key line such as {EXAMPLE}, found an empty text"));
    }
    if line.contains('\n') {
        return Some(
            "expected one SSH public key on one line, found several lines; give each key its own entry".into(),
        );
    }
    if let Some(control) = line.chars().find(|it| it.is_control() && *it != '\t') {
        return Some(format!(
            "expected an SSH public key line without control characters, found U+{:04X}; remove it",
            u32::from(control)
        ));
    }
    if line.len() > LONGEST_BYTES {
        return Some(format!(
            "expected an SSH public key line of at most {LONGEST_BYTES} bytes, found {}; shorten its comment or use another kind of key",
            line.len()
        ));
    }
    if line.starts_with("-----BEGIN") || line.starts_with("---- BEGIN") {
        return Some("expected the PUBLIC key line (the file that ends in .pub), found a PEM block; never put a private key here".into());
    }
    if line.starts_with('#') {
        return Some("expected an SSH public key line, found a comment; remove the \"#\" or the entry".into());
    }
    read(line).err()
}

/// Reads a line as sshd does: a key, or else options and a key.
fn read(line: &str) -> Result<(), String> {
    let no_key = || {
        let head: String = line.chars().take(SHOWN).collect();
        format!(
            "expected a whole SSH public key line such as {EXAMPLE}, found \"{head}\", which is no key or was cut short"
        )
    };
    let rest = match key(line) {
        Ok(()) => return Ok(()),
        Err(NotAKey::Damaged(why)) => return Err(why),
        Err(NotAKey::NoKey) => {
            let (options, rest) = line.split_at(options::end(line)?);
            if matches!(key(rest), Err(NotAKey::NoKey)) {
                return Err(no_key());
            }
            options::check(options)?;
            rest
        }
    };
    match key(rest) {
        Err(NotAKey::Damaged(why)) => Err(why),
        Ok(()) | Err(NotAKey::NoKey) => Ok(()),
    }
}

enum NotAKey {
    /// The text does not begin as a key.
    NoKey,
    /// It does, and its data is not that of a key.
    Damaged(String),
}

fn key(text: &str) -> Result<(), NotAKey> {
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let (Some(kind), Some(data)) = (words.next(), words.next()) else { return Err(NotAKey::NoKey) };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-@.".contains(&byte);
    if !kind.bytes().all(is_name) {
        return Err(NotAKey::NoKey);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(data);
    let is_known = blob::is_known(kind);
    let damaged = |why: String| {
        NotAKey::Damaged(format!("expected a whole {kind} key, found {why}; copy the whole line of the .pub file"))
    };
    match bytes {
        Ok(bytes) => blob::check(kind, &bytes).map_err(damaged),
        Err(_) if is_known => Err(damaged("data that is not base64 or was cut short".into())),
        // Options may have this form, and a key behind them.
        Err(_) => Err(NotAKey::NoKey),
    }
}
