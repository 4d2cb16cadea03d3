//! Bounds for text that users influence, before it reaches an error, a log or a status.

/// The most of a name from an image that a message repeats, in bytes.
pub(crate) const MAX_NAME_IN_MESSAGE: usize = 256;

/// Returns `text`, or its beginning and an ellipsis where it is longer than `limit` bytes.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

/// Returns a name from an image for a message: as text, and clipped.
pub(crate) fn clip_name(name: &[u8]) -> String {
    let beginning = &name[..name.len().min(MAX_NAME_IN_MESSAGE + 1)];
    clip(&String::from_utf8_lossy(beginning), MAX_NAME_IN_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_clipped_between_characters() {
        assert_eq!(clip("short", 5), "short");
        assert_eq!(clip("longer", 5), "lo…");
        assert_eq!(clip("ééééé", 8), "éé…");
        assert_eq!(clip_name(&[b'a'; 10_000]).len(), MAX_NAME_IN_MESSAGE);
    }
}
