//! Forms of names, with Kubernetes' explanations (`k8s.io/apimachinery/pkg/util/validation`). Each function returns what is
//! wrong, nothing if the name is good.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

fn max_length(max: usize) -> String {
    format!("must be no more than {max} bytes")
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
        out.push(max_length(LABEL_MAX));
    }
    if !is_label(text) {
        // A name that would do if it had no dots gets a hint.
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
        out.push(max_length(SUBDOMAIN_MAX));
    }
    if !is_subdomain(text) {
        out.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_string());
    }
    out
}
