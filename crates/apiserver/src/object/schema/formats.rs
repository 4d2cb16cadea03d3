//! The string formats that Kubernetes validates in custom resources; any other format passes.

use super::Type;
use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Returns the format if values of this type are checked against it, else an empty string.
pub(super) fn supported(kind: Option<Type>, format: &str) -> &str {
    const TEXT: [&str; 26] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
        "k8sshortname",
        "k8slongname",
    ];
    let is_supported = match kind {
        None | Some(Type::String) => TEXT.contains(&format.replace('-', "").as_str()),
        Some(Type::Integer) => matches!(format, "int32" | "int64"),
        Some(Type::Number) => matches!(format, "float" | "double"),
        _ => false,
    };
    if is_supported { format } else { "" }
}

pub(super) fn is_valid(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "datetime" => is_date_time(text),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID.is_match(text) && version_digit(text) == Some('3'),
        "uuid4" => UUID.is_match(text) && version_digit(text) == Some('4') && variant_fits(text),
        "uuid5" => UUID.is_match(text) && version_digit(text) == Some('5') && variant_fits(text),
        "byte" => !text.is_empty() && BASE64.is_match(text) && text.len().is_multiple_of(4),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => HEX_COLOUR.is_match(text),
        "rgbcolor" => RGB_COLOUR.is_match(text),
        "ssn" => SSN.is_match(text),
        "creditcard" => is_credit_card(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8sshortname" => crate::object::meta_validate::names::dns1123_label(text).is_empty(),
        "k8slongname" => crate::object::meta_validate::names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("constant pattern"));
    };
}

pattern!(UUID, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$");
pattern!(BASE64, r"^[A-Za-z0-9+/]*={0,2}$");
pattern!(HEX_COLOUR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOUR,
    r"^rgb\(\s*(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\s*,\s*(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\s*,\s*(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\s*\)$"
);
pattern!(SSN, r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$");
pattern!(TIME, r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");
pattern!(GO_DURATION, r"^[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[+-]?0$");
pattern!(LOOSE_DURATION, r"([0-9]+)\s*([A-Za-zµ]+)");
pattern!(EMAIL_LOCAL, r#"^([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+|"[^"\\]*")$"#);

fn version_digit(uuid: &str) -> Option<char> {
    uuid.chars().filter(|c| *c != '-').nth(12)
}

fn variant_fits(uuid: &str) -> bool {
    uuid.chars().filter(|c| *c != '-').nth(16).is_some_and(|c| "89abAB".contains(c))
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    let Some(parts) = TIME.captures(time) else { return false };
    is_date(date) && &parts[1] <= "23" && &parts[2] <= "59" && &parts[3] <= "59"
}

/// A duration as Go's `time.ParseDuration` reads it: `1h30m`.
pub fn is_go_duration(text: &str) -> bool {
    GO_DURATION.is_match(text)
}

/// Whether the text is a Go duration, or contains a number with a unit: `1 day`.
fn is_duration(text: &str) -> bool {
    const EXACT: [&str; 11] = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];
    const PREFIXES: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    GO_DURATION.is_match(text)
        || LOOSE_DURATION.captures_iter(text).any(|m| {
            let unit = m[2].to_lowercase();
            EXACT.contains(&unit.as_str()) || PREFIXES.iter().any(|p| unit.starts_with(p))
        })
}

/// Approximates Go's `url.ParseRequestURI`: an absolute path, or a scheme followed by more.
fn is_uri(text: &str) -> bool {
    let hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let escapes_fit =
        bytes.iter().enumerate().all(|(i, b)| *b != b'%' || (hex(bytes.get(i + 1)) && hex(bytes.get(i + 2))));
    if text.is_empty() || !escapes_fit || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.chars();
    let scheme_fits = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let host_fits = match rest.strip_prefix("//") {
        None => true,
        Some(rest) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            match host.strip_prefix('[') {
                Some(inner) => inner.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok()),
                None => !host.contains(['[', ']']),
            }
        }
    };
    scheme_fits && host_fits && !rest.is_empty()
}

/// An address, or a name with an address in angle brackets.
fn is_email(text: &str) -> bool {
    let address = match text.trim().strip_suffix('>') {
        Some(rest) => match rest.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => text.trim(),
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    EMAIL_LOCAL.is_match(local)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && !domain.is_empty()
        && domain.split('.').all(|label| !label.is_empty())
        && domain.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '.')
}

/// One label with at most one dash, after its first character; or labels separated by dots, the last of letters only.
fn is_hostname(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || (!c.is_ascii() && !c.is_whitespace() && !c.is_control());
    let label =
        |label: &str| label.starts_with(fits) && label.ends_with(fits) && label.chars().all(|c| fits(c) || c == '-');
    if text.len() > 255 || text.split('.').any(|label| label.len() > 63) {
        return false;
    }
    match text.rsplit_once('.') {
        None => {
            let mut chars = text.chars();
            let rest = |rest: &str| rest.strip_prefix('-').unwrap_or(rest).chars().all(fits);
            chars.next().is_some_and(fits) && rest(chars.as_str())
        }
        Some((labels, last)) => {
            labels.split('.').all(label) && last.chars().count() >= 2 && last.chars().all(char::is_alphabetic)
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let bits = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit()) && prefix.parse::<u32>().is_ok_and(|p| p <= bits)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        parts.iter().all(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_hexdigit()))
            && matches!(parts.len() * digits / 2, 6 | 8 | 20)
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

fn digits_without_separators(text: &str) -> String {
    text.chars().filter(|c| *c != '-' && *c != ' ').collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = digits_without_separators(text);
    if digits.len() != 10 || !digits.is_ascii() {
        return false;
    }
    let mut sum = 0;
    for (i, c) in digits.chars().enumerate() {
        let value = match c {
            'X' if i == 9 => 10,
            c => match c.to_digit(10) {
                Some(d) => d,
                None => return false,
            },
        };
        sum += (i as u32 + 1) * value;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits_without_separators(text);
    let values: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|v| {
        v.len() == 13 && v.iter().enumerate().map(|(i, d)| if i % 2 == 0 { *d } else { 3 * d }).sum::<u32>() % 10 == 0
    })
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    (12..=19).contains(&digits.len())
        && digits
            .iter()
            .rev()
            .enumerate()
            .map(|(i, d)| {
                if i % 2 == 0 {
                    *d
                } else if *d > 4 {
                    2 * d - 9
                } else {
                    2 * d
                }
            })
            .sum::<u32>()
            % 10
            == 0
}
