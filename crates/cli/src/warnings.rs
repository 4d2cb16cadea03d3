//! Warnings that come with the server's answers (`Warning: 299 - "text"`), printed to standard error as kubectl does: each once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use http::Response;
use http::header::{HeaderMap, WARNING};

use crate::terminal;

static PRINTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Prints the warnings of a response and passes it on.
pub fn print<B>(response: Response<B>) -> Response<B> {
    let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    for text in texts(response.headers()) {
        if printed.insert(text.clone()) {
            eprintln!("Warning: {}", String::from_utf8_lossy(&terminal::shown(text.as_bytes())));
        }
    }
    response
}

/// The texts of a response's warnings.
fn texts(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(WARNING).iter();
    let texts = values.filter_map(|value| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let quoted = value.strip_prefix("299 ")?.split_once('"')?.1.strip_suffix('"')?;
        let mut text = String::new();
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            text.extend(if character == '\\' { characters.next() } else { Some(character) });
        }
        Some(text)
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_unquoted() {
        let mut headers = HeaderMap::new();
        for value in [r#"299 - "found \"a\\n\": ignored""#, r#"299 - "b""#, r#"110 - "not ours""#, "299 -"] {
            headers.append(WARNING, value.parse().unwrap());
        }
        assert_eq!(texts(&headers), [r#"found "a\n": ignored"#, "b"]);
    }
}
