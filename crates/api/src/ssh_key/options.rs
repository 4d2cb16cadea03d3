//! The options before a key (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"). sshd skips a key with an option that it does not know.

/// Options that are on or off.
const FLAGS: [&str; 14] = [
    "agent-forwarding",
    "cert-authority",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-x11-forwarding",
    "port-forwarding",
    "pty",
    "restrict",
    "user-rc",
    "verify-required",
    "x11-forwarding",
];
/// Options with a value in quotes.
const VALUES: [&str; 8] =
    ["command", "environment", "expiry-time", "from", "permitlisten", "permitopen", "principals", "tunnel"];
/// Options that may be given once.
const ONCE: [&str; 4] = ["command", "expiry-time", "from", "principals"];

/// Checks the options of a line; the error is the reason why sshd would not take them.
pub(super) fn check(options: &str) -> Result<(), String> {
    let mut seen = Vec::new();
    for option in split(options) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name.to_ascii_lowercase(), Some(value)),
            None => (option.to_ascii_lowercase(), None),
        };
        match value {
            None if FLAGS.contains(&name.as_str()) => {}
            Some(value) if VALUES.contains(&name.as_str()) => quoted(&name, value)?,
            None if VALUES.contains(&name.as_str()) => {
                return Err(format!("expected {name}=\"…\", found {name} alone"));
            }
            Some(_) if FLAGS.contains(&name.as_str()) => {
                return Err(format!("expected the option {name} without a value, found \"{option}\""));
            }
            _ => {
                let known = [FLAGS.as_slice(), VALUES.as_slice()].concat().join(", ");
                return Err(format!("expected options of sshd(8) before the key ({known}), found \"{option}\""));
            }
        }
        if ONCE.contains(&name.as_str()) && seen.contains(&name) {
            return Err(format!("expected the option {name} once, found it several times"));
        }
        seen.push(name);
    }
    Ok(())
}

/// The end of the options: the first blank outside quotes.
pub(super) fn end(line: &str) -> Result<usize, String> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in line.bytes().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Ok(index),
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    if quoted {
        Err("expected a closing quote in the options before the key, found none".into())
    } else {
        Ok(line.len())
    }
}

/// The options, at commas outside quotes.
fn split(options: &str) -> Vec<&str> {
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    let mut parts = Vec::new();
    for (index, byte) in options.bytes().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&options[start..index]);
                start = index + 1;
            }
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&options[start..]);
    parts
}

fn quoted(name: &str, value: &str) -> Result<(), String> {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    match inner {
        None => Err(format!("expected {name}=\"…\" in double quotes, found {name}={value}")),
        Some(inner) if name == "environment" && !inner.contains('=') => {
            Err(format!("expected environment=\"NAME=value\", found environment=\"{inner}\""))
        }
        Some(_) => Ok(()),
    }
}
