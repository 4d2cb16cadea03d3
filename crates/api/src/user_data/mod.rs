//! User data: the bytes that a guest gets for `cloudInitUserData`, and what cloud-init will make of them.
//!
//! The field is a text. What consists of base64 characters only and decodes is base64; anything else is the user data itself. No form that
//! cloud-init knows consists of base64 characters only, so that nothing useful can be mistaken for the other. What cloud-init
//! would ignore is passed on, with a warning at creation.

mod forms;
mod keys;
#[cfg(test)]
mod tests;

use std::io::Read;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use forms::unrecognised;
pub use keys::{lists_default_user, references_keys};

/// The longest `cloudInitUserData`, in bytes: about what an object may have in all. Base64 takes a third more than what it stands for.
pub const LONGEST_BYTES: usize = 1 << 20;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BOM: char = '\u{feff}';
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How much of compressed user data is looked at: what expands to more than this is passed on unseen.
const LONGEST_LOOK: u64 = 16 << 20;

/// The bytes that the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The user data, without a byte order mark.
    pub bytes: Vec<u8>,
    /// Whether it was given as base64.
    pub was_base64: bool,
}

/// Decodes the text of the field.
pub fn decode(given: &str) -> Decoded {
    let text = given.strip_prefix(BOM).unwrap_or(given);
    let Some(decoded) = base64(text) else {
        return Decoded { bytes: text.as_bytes().to_vec(), was_base64: false };
    };
    let mark = BOM.to_string();
    let bytes = decoded.strip_prefix(mark.as_bytes()).map(<[u8]>::to_vec).unwrap_or(decoded);
    Decoded { bytes, was_base64: true }
}

/// Decodes base64 of either alphabet, padded or not, on any number of lines.
fn base64(text: &str) -> Option<Vec<u8>> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if compact.is_empty() {
        return None;
    }
    let alphabet = if compact.iter().any(|byte| matches!(byte, b'-' | b'_')) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(compact).ok()
}

/// Reads the content of gzip, up to [`LONGEST_LOOK`]; `None` if cloud-init would not be able to read it either.
fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let reader = flate2::read::MultiGzDecoder::new(bytes);
    reader.take(LONGEST_LOOK).read_to_end(&mut content).ok().map(|_| content)
}
