//! SSH public keys as sshd(8) writes them: `[options] type base64 [comment]`. Any algorithm is allowed, the form is checked.

use base64::Engine;

/// Why a line is not an SSH public key.
pub fn problem(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() {
        return Some(
            "expected an SSH public key line such as \"ssh-ed25519 AAAA… me@laptop\", found an empty text".into(),
        );
    }
    if line.contains('\n') {
        return Some(
            "expected one SSH public key on one line, found several lines; give each key its own entry".into(),
        );
    }
    if line.starts_with("-----BEGIN") {
        return Some("expected the PUBLIC key line (the file that ends in .pub), found a PEM block; never put a private key here".into());
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let encoded = words.windows(2).any(|pair| names_itself(pair[0], pair[1]));
    (!encoded).then(|| {
        let head: String = line.chars().take(40).collect();
        format!("expected an SSH public key line such as \"ssh-ed25519 AAAA… me@laptop\", found \"{head}\"")
    })
}

/// A key's data starts with the length and the name of its own type.
fn names_itself(kind: &str, data: &str) -> bool {
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(data) else { return false };
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let length = u32::from_be_bytes(*length) as usize;
    rest.len() > length && &rest[..length] == kind.as_bytes()
}
