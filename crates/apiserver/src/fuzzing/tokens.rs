//! Tokens of lists. First line: a token as a client could send it; what follows: the key where a list ended.

use super::first_line;
use crate::http::request::token::ContinueToken;
use crate::state::storage::keys::ObjectKey;

pub(super) fn continue_token(data: &[u8]) {
    let (first, rest) = first_line(data);
    if let Ok(text) = std::str::from_utf8(first) {
        for namespace in ["", "demo"] {
            match ContinueToken::parse(text, namespace) {
                Ok(token) => {
                    assert_eq!(token.encode(), text.trim_end_matches('='), "a state has one token");
                    assert_ne!(token.revision, Some(0));
                    assert!(namespace.is_empty() || token.after.namespace() == namespace);
                }
                Err(error) => assert_eq!(error.code, 400),
            }
        }
    }
    let Ok(key) = std::str::from_utf8(rest) else { return };
    let revision =
        1 + u64::from(first.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte))));
    let token = ContinueToken { revision: Some(revision).filter(|it| it % 7 != 0), after: ObjectKey::from_text(key) };
    let text = token.encode();
    assert!(
        text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_')),
        "{text} is no part of a URL"
    );
    let namespace = token.after.namespace().to_owned();
    let parse = |text: &str, namespace: &str| ContinueToken::parse(text, namespace);
    assert_eq!(parse(&text, &namespace).unwrap(), token);
    assert!(parse(&text, &format!("{namespace}x")).is_err(), "it goes on in its own namespace only");
    for position in (0..text.len()).step_by(1 + text.len() / 32) {
        let mut changed = text.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        assert!(parse(&String::from_utf8(changed).unwrap(), "").is_err(), "changed at {position}: {text}");
        assert!(parse(&text[..position], "").is_err(), "cut at {position}: {text}");
    }
}
