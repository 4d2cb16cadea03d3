//! Rules for names, with Kubernetes' messages (`k8s.io/apimachinery/pkg/util/validation`). Each function returns the problems
//! found; none if the name is valid.

pub(super) const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// Returns the message for a name that is too long. Kubernetes always counts bytes, but only some messages state it.
fn max_length(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn max_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_alnum(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| is_alnum(c) || c == '-')
        && text.starts_with(is_alnum)
        && text.ends_with(is_alnum)
}

/// A DNS-1123 label: `a-b1`.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(max_characters(LABEL_MAX));
    }
    if !is_label(text) {
        // A name that is valid but for its dots gets a hint.
        if is_subdomain(text) {
            out.push("must not contain dots".to_string());
        } else {
            out.push("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".to_string());
        }
    }
    out
}

fn is_subdomain(text: &str) -> bool {
    !text.is_empty() && text.split('.').all(is_label)
}

/// A DNS-1123 subdomain: `a.b-c`.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(max_characters(SUBDOMAIN_MAX));
    }
    if !is_subdomain(text) {
        out.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_string());
    }
    out
}

/// A DNS-1035 label: like a DNS-1123 label, but starts with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(max_characters(LABEL_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        out.push("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".to_string());
    }
    out
}

fn is_qualified_part(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A key of labels and annotations, a finalizer: `name` or `prefix/name`.
pub fn label_key(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_string());
            } else {
                let bytes = |m: String| m.replace(&max_characters(SUBDOMAIN_MAX), &max_length(SUBDOMAIN_MAX));
                out.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {}", bytes(m))));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_string());
    } else if name.len() > LABEL_MAX {
        out.push(format!("name part {}", max_length(LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        out.push(format!("name part {NAME_PART}"));
    }
    out
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(max_length(LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        out.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".to_string());
    }
    out
}
