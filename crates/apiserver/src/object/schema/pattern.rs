//! Patterns: Go's RE2 syntax with the `regex` crate, whose syntax is nearly the same.

use regex::{Regex, RegexBuilder};

/// Repeated classes of Unicode letters compile to large programs; Go has no such limit.
const MAX_COMPILED_BYTES: usize = 64 << 20;

/// Compiles a schema's `pattern`, and translates where Go differs: `\Z` does not exist, `\z` does; `\d`, `\s`, `\w` and `\b` are
/// ASCII in Go; `(?P<n>…)` works in both.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&ascii_classes(pattern)).size_limit(MAX_COMPILED_BYTES).build()
}

/// Rewrites the Perl classes to their ASCII form, as in Go.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(class @ ('d' | 'D' | 's' | 'S' | 'w' | 'W')) => {
                out.push_str(match class {
                    'd' => "[0-9]",
                    'D' => "[^0-9]",
                    's' => "[\\t\\n\\f\\r ]",
                    'S' => "[^\\t\\n\\f\\r ]",
                    'w' => "[0-9A-Za-z_]",
                    _ => "[^0-9A-Za-z_]",
                });
            }
            Some('b') => out.push_str("(?-u:\\b)"),
            Some('/') => out.push('/'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn go_syntax_is_accepted_and_classes_are_ascii() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١", false),
            (r"^[\w.-]+$", "a_b-c.1", true),
            (r"^[\w.-]+$", "é", false),
            (r"^[^\s]+$", "a b", false),
            (r"^a\/b$", "a/b", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^(?P<x>a)+$", "aaa", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} on {text}");
        }
    }
}
