//! Comments are plain English: no dialect that a newcomer has to learn before reading the code.
//!
//! Only comments in Rust are read, without code in backticks and quoted text. The phrases are those that hide the common term; a
//! phrase that is also good English in many sentences is not listed.

use super::Finding;
use crate::repo::Repo;

/// Words with which no doc comment begins: it begins with a verb ("Returns") or a noun ("The uid of").
const OPENINGS: &[&str] =
    &["What", "Who", "Whom", "Whose", "Whoever", "Of", "On whom", "To whom", "So much", "So many"];

/// Phrases, in lower case, with the common terms for them.
const PHRASES: &[(&str, &str)] = &[
    ("told", "`reported`, `notified`, `ordered` or `distinguished`"),
    ("whom", "the noun: the user, the holder, the object"),
    ("whoever", "the noun: the caller, the process, the client"),
    ("nobody", "`no user`, `no process`, `unused` or `unknown`"),
    ("somebody", "`a user`, `another process` or `a client`"),
    ("anew", "`again`"),
    ("makes no sense", "`is invalid`"),
    ("says so", "`reports it` or `states it`"),
    ("speaks for", "`identifies` or `has the identity of`"),
    ("is so already", "`the state is reached already`"),
    ("what is others'", "`objects of other tenants`"),
];

/// Finds the openings and phrases in comments.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let rust = repo.files.iter().filter(|file| file.path.ends_with(".rs"));
    rust.flat_map(|file| {
        problems(&file.text).into_iter().map(|(line, message)| Finding::error(format!("{}:{line}", file.path), message))
    })
    .collect()
}

/// Returns the problems of a file with their lines.
fn problems(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut continues = false;
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = comment(line) else {
            continues = false;
            continue;
        };
        let prose = prose(comment.text);
        if comment.is_doc
            && !continues
            && let Some(opening) = OPENINGS.iter().find(|opening| words(&prose).starts_with(&words(opening)))
        {
            let message =
                format!("a doc comment begins with `{opening}`; begin with a verb (Returns, Writes) or a noun");
            found.push((number + 1, message));
        }
        let lower = words(&prose.to_lowercase());
        for (phrase, instead) in PHRASES {
            let phrase_words = words(phrase);
            if lower.windows(phrase_words.len()).any(|window| window == phrase_words) {
                found.push((
                    number + 1,
                    format!("the comment has `{phrase}`; write the common term, such as {instead}"),
                ));
            }
        }
        // An empty line in a comment begins a paragraph, not the comment.
        continues = true;
    }
    found
}

/// A line that is a comment as a whole.
struct Comment<'a> {
    text: &'a str,
    is_doc: bool,
}

fn comment(line: &str) -> Option<Comment<'_>> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(match text.strip_prefix(['/', '!']) {
        Some(text) => Comment { text, is_doc: true },
        None => Comment { text, is_doc: false },
    })
}

/// Returns the text without code in backticks and without quoted text.
fn prose(text: &str) -> String {
    let outside = |text: &str, mark: char| text.split(mark).step_by(2).collect::<Vec<_>>().join(" ");
    outside(&outside(text, '`'), '"')
}

/// Returns the words of a text; an apostrophe belongs to its word.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    /// Returns the lines with a finding.
    fn lines(text: &str) -> Vec<usize> {
        problems(text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn planted_dialect_is_found() {
        for text in [
            "/// What is kept of it.\nfn a() {}",
            "    /// Of which kind.\n    kind: String,",
            "//! Who may do it.",
            "/// So much is left.",
            "// The user is told.",
            "/// Returns the user for whom it is.",
            "// Nobody listens.",
            "// Made anew, whatever was before.",
            "// The status says so.",
        ] {
            assert_eq!(lines(text), [1], "{text}");
        }
        assert_eq!(lines("/// Returns it.\n///\n/// The caller is told.\nfn a() {}\n/// Whose it is."), [3, 5]);
        let repo =
            planted::files(&[("crates/a/src/lib.rs", "fn a() {}\n/// What for."), ("docs/a.md", "/// What for.")]);
        let places: Vec<String> = check(&repo).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["crates/a/src/lib.rs:2"]);
    }

    #[test]
    fn plain_english_passes() {
        for text in [
            "/// Returns what was found.\n/// What follows continues the sentence.",
            "/// Offsets of the parts.",
            "/// The user `nobody`, as in \"nobody\".",
            "let nobody = \"told\"; // unread: not a whole line",
            "/// Whatever happens, it is removed.",
            "// retold stories",
        ] {
            assert_eq!(lines(text), [0; 0], "{text}");
        }
    }
}
