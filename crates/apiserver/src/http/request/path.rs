//! Normalises paths once, before any decision about them.

use crate::object::error::ApiError;

/// Returns the decoded segments of a path. One trailing slash is ignored.
///
/// # Errors
/// 404 for empty, `.` and `..` segments, for segments with an encoded slash, and for what is not UTF-8: they cannot name
/// anything, and other software may interpret them differently.
pub fn normalise(path: &str) -> Result<Vec<String>, ApiError> {
    let path = path.strip_prefix('/').ok_or_else(ApiError::no_such_path)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/')
        .map(|segment| {
            let decoded = decode(segment, false).ok_or_else(ApiError::no_such_path)?;
            let is_name = !decoded.is_empty() && decoded != "." && decoded != ".." && !decoded.contains(['/', '\0']);
            if is_name { Ok(decoded) } else { Err(ApiError::no_such_path()) }
        })
        .collect()
}

/// Decodes `%41`, and `+` as a blank in queries; `None` if it is malformed or not UTF-8.
pub fn decode(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus_is_blank => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}
