//! Rust source with comments and literals blanked out, so that a search finds code only.
//!
//! Line numbers stay: every character that goes is replaced by a space, every line break is kept. It knows strings, raw
//! strings, characters against lifetimes, and nested block comments; that suffices for a search of identifiers.

/// Returns source text without the content of comments and of string and character literals.
pub fn code(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = match text[at] {
            '/' if text.get(at + 1) == Some(&'/') => line_end(&text, at),
            '/' if text.get(at + 1) == Some(&'*') => block_comment_end(&text, at),
            '"' => string_end(&text, at),
            'r' if !follows_identifier(&text, at) => raw_string_end(&text, at),
            '\'' => character_end(&text, at),
            _ => at,
        };
        if end == at {
            out.push(text[at]);
            at += 1;
        } else {
            out.extend(text[at..end].iter().map(|character| if *character == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The part of a file that is not compiled for tests only: up to the first `#[cfg(test)]` on a module.
pub fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let rest = code[start + "#[cfg(test)]".len()..].trim_start();
        // `mod tests;` names another file; `mod tests {` is the rest of this one, by convention.
        if rest.starts_with("mod ") && rest.find('{') < rest.find(';').or(Some(usize::MAX)) && rest.contains('{') {
            return &code[..start];
        }
        from = start + 1;
    }
    code
}

/// Whether a file holds nothing but tests.
pub fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

fn line_end(text: &[char], at: usize) -> usize {
    text[at..].iter().position(|character| *character == '\n').map_or(text.len(), |length| at + length)
}

fn block_comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0, at);
    while end < text.len() {
        match (text[end], text.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            return end;
        }
    }
    end
}

fn string_end(text: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < text.len() {
        match text[end] {
            '\\' => end += 2,
            '"' => return end + 1,
            _ => end += 1,
        }
    }
    text.len()
}

fn raw_string_end(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|character| **character == '#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&'"') {
        return at;
    }
    let mut end = open + 1;
    while end < text.len() {
        if text[end] == '"' && text[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    text.len()
}

fn character_end(text: &[char], at: usize) -> usize {
    match text.get(at + 1) {
        Some('\\') => text[at + 2..].iter().skip(1).position(|c| *c == '\'').map_or(at, |length| at + length + 4),
        Some(_) if text.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn follows_identifier(text: &[char], at: usize) -> bool {
    // `br"..."` is a raw string too; `for"` cannot be written.
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_') && text[at - 1] != 'b'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_lines_stay() {
        let source =
            "a // unsafe\n\"unsafe \\\" x\" /* /* unsafe */ unsafe */ b\nr#\"unsafe \" \"# c '\\'' '\"' d 'static e";
        let scrubbed = code(source);
        assert!(!scrubbed.contains("unsafe"), "{scrubbed}");
        assert_eq!(scrubbed.lines().count(), 3);
        for word in ["a", "b", "c", "d", "'static e"] {
            assert!(scrubbed.contains(word), "{word} is missing: {scrubbed}");
        }
    }

    #[test]
    fn the_test_module_is_cut_off_and_a_reference_to_one_is_not() {
        assert_eq!(without_tests("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n"), "fn a() {}\n");
        let elsewhere = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
        assert_eq!(without_tests(elsewhere), elsewhere);
    }
}
