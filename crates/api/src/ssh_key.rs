//! SSH public keys as sshd(8) writes them: `[options] type base64 [comment]`. Any algorithm is allowed, the form is checked.

use base64::Engine;

/// The reason why a line is not an SSH public key.
pub fn problem(line: &str) -> Option<String> {
    let line = line.trim_matches([' ', '\t', '\r', '\n']);
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
    if let Some(control) = line.chars().find(|it| it.is_control() && *it != '\t') {
        return Some(format!(
            "expected an SSH public key line without control characters, found U+{:04X}; remove it",
            u32::from(control)
        ));
    }
    if line.starts_with("-----BEGIN") {
        return Some("expected the PUBLIC key line (the file that ends in .pub), found a PEM block; never put a private key here".into());
    }
    let parts: Vec<&str> = line.split_whitespace().collect();
    let is_key = parts.windows(2).any(|pair| names_itself(pair[0], pair[1]));
    (!is_key).then(|| {
        let head: String = line.chars().take(40).collect();
        format!(
            "expected a whole SSH public key line such as \"ssh-ed25519 AAAA… me@laptop\", found \"{head}\", which is no key or was cut short"
        )
    })
}

/// The data of a key is a list of fields, each after its length in four bytes; the first is the name of the key's type. One that was cut
/// short ends within a field, or after too few: no algorithm has fewer than two.
fn names_itself(kind: &str, data: &str) -> bool {
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(data) else { return false };
    let Some(fields) = fields(&bytes) else { return false };
    let needed = match kind {
        "ssh-rsa" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" => 3,
        "sk-ssh-ed25519@openssh.com" => 3,
        "ssh-dss" => 5,
        "sk-ecdsa-sha2-nistp256@openssh.com" => 4,
        _ => 2,
    };
    fields.first() == Some(&kind.as_bytes())
        && fields.len() >= needed
        && fields.iter().all(|field| !field.is_empty())
        && (kind != "ssh-ed25519" || fields[1].len() == 32)
}

/// The fields of a key's data; `None` if the last one is cut short.
fn fields(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        fields.push(field);
        bytes = rest;
    }
    Some(fields)
}
