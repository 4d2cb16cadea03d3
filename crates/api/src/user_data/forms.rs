//! Which user data cloud-init knows, by its first characters.

use super::{Decoded, GZIP, gunzip};

/// The beginnings that cloud-init goes by (`INCLUSION_TYPES_MAP` in `cloudinit/handlers`, in any case of letters). MIME is apart.
const HEADERS: [&str; 9] = [
    "#!",
    "#cloud-config",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "#cloud-boothook",
    "#include",
    "#include-once",
    "#part-handler",
    JINJA,
];
const JINJA: &str = "## template: jinja";
/// The beginnings of a template's second line that every version of cloud-init takes. A line that begins with a statement is not judged.
const RENDERED: [&str; 2] = ["#!", "#cloud-config"];
/// The mark of a MIME message, which is searched for in so many first bytes: user data with it is MIME, with or without `Content-Type` ahead of it.
const MIME: &str = "mime-version:";
const MIME_WITHIN: usize = 4096;
/// How much of what was found a message shows, in characters.
const SHOWN: usize = 40;

/// The reason why cloud-init will ignore the user data, if it will.
pub fn unrecognised(decoded: &Decoded) -> Option<String> {
    let bytes = &decoded.bytes;
    let is_gzip = bytes.starts_with(&GZIP);
    let content = if is_gzip { gunzip(bytes) } else { Some(bytes.clone()) };
    let found = match content {
        None => "gzip that is damaged or cut short".to_owned(),
        Some(content) if is_known(&content) => return None,
        Some(content) => {
            let form = match (decoded.was_base64, is_gzip) {
                (true, true) => "base64 of gzip of ",
                (true, false) => "base64 of ",
                (false, true) => "gzip of ",
                (false, false) => "",
            };
            format!("{form}{}", shown(&content))
        }
    };
    Some(format!(
        "expected user data that cloud-init knows by its beginning ({}, or MIME with a \"MIME-Version:\" line), as text, as base64 or as \
         base64 of gzip; found {found}: cloud-init will ignore it",
        HEADERS.join(", ")
    ))
}

fn is_known(content: &[u8]) -> bool {
    // In every form, bytes that are no text make cloud-init give up.
    let Ok(text) = std::str::from_utf8(content) else { return false };
    let head = String::from_utf8_lossy(&content[..content.len().min(MIME_WITHIN)]).to_lowercase();
    if head.contains(MIME) {
        return true;
    }
    let text = text.trim_start();
    if starts_with(text, JINJA) {
        let template = text.split_once('\n').map_or("", |(_, template)| template).trim_start();
        return RENDERED.iter().any(|header| starts_with(template, header)) || template.starts_with('{');
    }
    HEADERS.iter().any(|header| starts_with(text, header))
}

fn starts_with(text: &str, header: &str) -> bool {
    text.get(..header.len()).is_some_and(|start| start.eq_ignore_ascii_case(header))
}

fn shown(content: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(content) else { return "bytes that are not UTF-8 text".into() };
    let text = text.trim_start();
    if text.is_empty() {
        return "nothing".into();
    }
    let head: String = text.chars().take(SHOWN).collect();
    let rest = if head.len() < text.len() { "…" } else { "" };
    format!("\"{}{rest}\"", head.escape_default())
}
