//! Forms of names: what objects of each kind may be called, and the same forms for references to them.
//!
//! A name becomes part of other names: a host name, a label's value, the name of an object that is made for it. The rule of a kind
//! leaves room for those, so that a name that is accepted works.

/// The form of a DNS label of at most 63 characters.
pub const LABEL: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
/// The same, or nothing: for references where the empty text means none.
pub const LABEL_OR_EMPTY: &str = "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$";
/// The form of DNS labels with dots between them: what every object's name has.
pub const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The serial number of a certificate, as in the audit log or as openssl prints it.
pub const CERTIFICATE_SERIAL: &str = "^[0-9a-fA-F]{1,2}(:?[0-9a-fA-F]{2}){0,19}$";
/// The id of a token, as in the audit log.
pub const TOKEN_ID: &str = "^[-_0-9a-zA-Z]{8,64}$";
/// The form of a uid that the API server gives.
pub const UID: &str = "^[-a-zA-Z0-9]{1,64}$";
/// The form of a SHA-256 in hexadecimal.
pub const SHA256: &str = "^[0-9a-f]{64}$";

/// The form of a digest.
pub const DIGEST: &str = "^sha256:[0-9a-f]{64}$";
/// The form of a repository in a registry.
pub const REPOSITORY: &str = "^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$";
/// The form of an IPv4 address.
pub const IPV4: &str = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$";
/// The form of the name of a machine type or processor model.
pub const HARDWARE: &str = "^[a-zA-Z0-9][-._a-zA-Z0-9]{0,63}$";
/// The form of a link address.
pub const LINK_ADDRESS: &str = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$";
/// The form of an environment variable's name, as Kubernetes has it: a shell can name it.
pub const ENVIRONMENT_VARIABLE: &str = "^[-._a-zA-Z][-._a-zA-Z0-9]*$";

/// The longest name that the API server accepts for any object.
pub const LONGEST: usize = 253;
/// The longest DNS label.
pub const LONGEST_LABEL: usize = 63;

/// Whether dots may be part of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameForm {
    /// A DNS label: no dots.
    Label,
    /// DNS labels with dots between them.
    Subdomain,
}

/// The rule for the names of a kind's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Whether there may be dots.
    pub form: NameForm,
    /// The most characters.
    pub longest: usize,
    /// The reason, for the refusal: half a sentence.
    pub why: &'static str,
}

impl NameRule {
    /// Any name that the API server accepts: nothing is made from it.
    pub const ANY: NameRule = NameRule { form: NameForm::Subdomain, longest: LONGEST, why: "it names an object" };

    /// A DNS label of at most `longest` characters.
    pub const fn label(longest: usize, why: &'static str) -> Self {
        NameRule { form: NameForm::Label, longest, why }
    }

    /// Returns the problem of `name` with the rule, if any.
    pub fn problem(&self, name: &str) -> Option<String> {
        let is_label = |text: &str| {
            let is_end = |byte: Option<u8>| byte.is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
            is_end(text.bytes().next())
                && is_end(text.bytes().last())
                && text.bytes().all(|it| is_end(Some(it)) || it == b'-')
        };
        let has_form = match self.form {
            NameForm::Label => is_label(name),
            NameForm::Subdomain => name.split('.').all(is_label),
        };
        let characters = name.chars().count();
        if has_form && characters <= self.longest {
            return None;
        }
        let dots = match self.form {
            NameForm::Label => "without dots",
            NameForm::Subdomain => "with dots between them",
        };
        Some(format!(
            "expected at most {} lower case letters, digits and '-', {dots}, beginning and ending with a letter or digit, because {}; \
             found {characters} characters",
            self.longest, self.why
        ))
    }
}

/// Whether `name` can be the name of an object: what cannot is the name of none, and never becomes part of a path.
pub fn is_object_name(name: &str) -> bool {
    NameRule::ANY.problem(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_no_dots_and_a_length() {
        let rule = NameRule::label(5, "of the test");
        for good in ["a", "a-b", "1a", "abcde"] {
            assert_eq!(rule.problem(good), None, "{good}");
        }
        for wrong in ["", "a.b", "-a", "a-", "A", "a_b", "abcdef", "ä"] {
            let problem = rule.problem(wrong).unwrap_or_else(|| panic!("{wrong} was accepted"));
            assert!(problem.contains("at most 5") && problem.contains("of the test"), "{problem}");
        }
    }

    #[test]
    fn paths_are_no_names() {
        assert!(is_object_name("tiny.1-0.1") && is_object_name(&"a".repeat(253)));
        for wrong in ["", "..", ".", "a/status", "a?x", "a#", "a%2f", "a b", "a..b", &"a".repeat(254)] {
            assert!(!is_object_name(wrong), "{wrong}");
        }
    }
}
