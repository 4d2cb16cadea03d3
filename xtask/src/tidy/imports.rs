//! Finds the imports between the files of a crate, from `use` declarations and from paths in the code.
//!
//! A name is followed through re-exports (`pub use`) to the file that defines it. It is a scanner and no compiler: macros, names
//! behind globs and `#[path]` are not followed, and test modules do not count.

use std::collections::{BTreeMap, BTreeSet};

use super::scrub;
use crate::repo::Repo;

/// A module's path from the root of its crate; the root itself is empty.
type Module = Vec<String>;

/// One file naming something that another file of the same crate defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file that imports, from the root of the repository.
    pub from: String,
    /// The file that defines the imported item.
    pub to: String,
    /// The line in `from`.
    pub line: usize,
    /// Whether it is a re-export (`pub use`).
    pub is_reexport: bool,
}

/// The result of scanning one file.
struct Source {
    file: String,
    uses: Vec<Use>,
    /// Paths outside `use` declarations, with their lines.
    paths: Vec<(usize, Vec<String>)>,
}

/// One name of a `use` declaration.
struct Use {
    line: usize,
    path: Vec<String>,
    /// Its name in the file: the last segment, or what follows `as`.
    name: String,
    is_reexport: bool,
}

/// The imports between files of the crate in the folder `dir`, in order.
pub fn between_files(repo: &Repo, dir: &str) -> Vec<Import> {
    let sources = sources(repo, dir);
    let mut found = BTreeSet::new();
    for (module, source) in &sources {
        let uses = source.uses.iter().map(|it| (it.line, &it.path, it.is_reexport));
        let paths = source.paths.iter().map(|(line, path)| (*line, path, false));
        for (line, path, is_reexport) in uses.chain(paths) {
            let Some(path) = absolute(&sources, module, path) else { continue };
            let to = &sources[&defining_module(&sources, &path, is_reexport)].file;
            if *to != source.file {
                found.insert(Import { from: source.file.clone(), to: to.clone(), line, is_reexport });
            }
        }
    }
    found.into_iter().collect()
}

/// Whether `file` holds a module in which `other` is nested.
pub fn is_parent(file: &str, other: &str) -> bool {
    let folder = match file.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder,
        _ => file.trim_end_matches(".rs"),
    };
    other != file && other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn sources(repo: &Repo, dir: &str) -> BTreeMap<Module, Source> {
    let root = format!("{dir}/src/");
    let mut sources = BTreeMap::new();
    for file in repo.rust_files(dir) {
        let Some(path) = file.path.strip_prefix(&root) else { continue };
        let is_program = path == "main.rs" && repo.text(&format!("{root}lib.rs")).is_some();
        if path.ends_with("tests.rs") || scrub::is_test_file(&file.path) || path.starts_with("bin/") || is_program {
            continue;
        }
        let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|it| it == "mod") || matches!(path, "lib.rs" | "main.rs") {
            module.pop();
        }
        let code = scrub::code(&file.text);
        let (uses, paths) = scan(&tokens(scrub::without_tests(&code)));
        sources.insert(module, Source { file: file.path.clone(), uses, paths });
    }
    sources.entry(Module::new()).or_insert(Source { file: String::new(), uses: Vec::new(), paths: Vec::new() });
    sources
}

/// The path from the crate's root; `None` if it leads out of the crate or is no path of a module.
fn absolute(sources: &BTreeMap<Module, Source>, module: &Module, path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base = module.clone();
    let mut rest = rest;
    match first.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop()?;
            while let Some(("super", further)) = rest.split_first().map(|(first, further)| (first.as_str(), further)) {
                base.pop()?;
                rest = further;
            }
        }
        _ => {
            base.push(first.clone());
            if !sources.contains_key(&base) {
                return None;
            }
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// Returns the module that defines the item of a path. An item that is only passed on by `pub use` is defined where that leads to.
fn defining_module(sources: &BTreeMap<Module, Source>, path: &[String], is_reexport: bool) -> Module {
    // More re-exports in a row than real code has; it ends names that lead back to themselves.
    const MOST_REEXPORTS: usize = 8;
    let mut path = path.to_vec();
    for _ in 0..MOST_REEXPORTS {
        let mut length = path.len();
        while !sources.contains_key(&path[..length]) {
            length -= 1;
        }
        let module = path[..length].to_vec();
        let passed_on = path.get(length).filter(|_| !is_reexport).and_then(|name| {
            let passed_on = sources[&module].uses.iter().find(|it| it.is_reexport && it.name == *name)?;
            absolute(sources, &module, &passed_on.path)
        });
        match passed_on {
            Some(mut further) => {
                further.extend(path.drain(length + 1..));
                path = further;
            }
            None => return module,
        }
    }
    Module::new()
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    Name(&'a str),
    /// `::`
    Path,
    Other(char),
}

fn tokens(code: &str) -> Vec<(usize, Token<'_>)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let (token, length) = if is_name(first) {
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                (Token::Name(&rest[..length]), length)
            } else if rest.starts_with("::") {
                (Token::Path, 2)
            } else {
                (Token::Other(first), first.len_utf8())
            };
            tokens.push((number + 1, token));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The names of all `use` declarations and the paths outside of them.
fn scan(tokens: &[(usize, Token<'_>)]) -> (Vec<Use>, Vec<(usize, Vec<String>)>) {
    let (mut uses, mut paths) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = &tokens[at];
        let next = tokens.get(at + 1).map(|(_, token)| token);
        match token {
            // `use<'a>` in a type is no declaration.
            Token::Name("use") if !matches!(next, Some(Token::Other('<'))) => {
                let is_reexport = at > 0 && matches!(tokens[at - 1].1, Token::Name("pub") | Token::Other(')'));
                at = tree(tokens, at + 1, &mut Vec::new(), &mut |line, path, name| {
                    uses.push(Use { line, path, name, is_reexport });
                });
            }
            Token::Name(first) => {
                let mut path = vec![(*first).to_owned()];
                while let (Some((_, Token::Path)), Some((_, Token::Name(name)))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    path.push((*name).to_owned());
                    at += 2;
                }
                at += 1;
                if path.len() > 1 {
                    paths.push((*line, path));
                }
            }
            _ => at += 1,
        }
    }
    (uses, paths)
}

/// Reads one tree of a `use` declaration below `prefix`; returns the place after it.
fn tree(
    tokens: &[(usize, Token<'_>)],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut impl FnMut(usize, Vec<String>, String),
) -> usize {
    let depth = prefix.len();
    while let Some((line, token)) = tokens.get(at) {
        at += 1;
        match token {
            Token::Name("self") if !prefix.is_empty() => {}
            Token::Name("as") => {
                let Some((_, Token::Name(alias))) = tokens.get(at) else { break };
                found(*line, prefix.clone(), (*alias).to_owned());
                prefix.truncate(depth);
                return at + 1;
            }
            Token::Name(name) => prefix.push((*name).to_owned()),
            Token::Path => continue,
            Token::Other('*') => {}
            Token::Other('{') => {
                while !matches!(tokens.get(at), None | Some((_, Token::Other('}' | ';')))) {
                    at = tree(tokens, at, prefix, found);
                    if matches!(tokens.get(at), Some((_, Token::Other(',')))) {
                        at += 1;
                    }
                }
                prefix.truncate(depth);
                return at + 1;
            }
            Token::Other(_) => break,
        }
        if !matches!(tokens.get(at), Some((_, Token::Path | Token::Name("as")))) {
            found(*line, prefix.clone(), prefix.last().cloned().unwrap_or_default());
            break;
        }
    }
    prefix.truncate(depth);
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    fn found(files: &[(&str, &str)]) -> Vec<(String, String, usize)> {
        let named: Vec<(String, &str)> =
            files.iter().map(|(path, text)| (format!("crates/a/src/{path}"), *text)).collect();
        let named: Vec<(&str, &str)> = named.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let short = |path: String| path.trim_start_matches("crates/a/src/").to_owned();
        let imports = between_files(&planted::files(&named), "crates/a");
        imports.into_iter().map(|it| (short(it.from), short(it.to), it.line)).collect()
    }

    fn import(from: &str, to: &str, line: usize) -> (String, String, usize) {
        (from.into(), to.into(), line)
    }

    #[test]
    fn declarations_and_paths_are_found() {
        let files = [
            ("lib.rs", "mod x;\nmod y;\n"),
            ("x/mod.rs", "pub mod deep;\nuse std::fmt;\nuse crate::{\n  y::{self, Thing as T},\n};\n"),
            ("x/deep.rs", "fn f() { crate::y::call(); super::other(); Vec::new(); }\n"),
            ("y.rs", "use super::x::deep::*;\n"),
        ];
        let expected = [
            import("x/deep.rs", "x/mod.rs", 1),
            import("x/deep.rs", "y.rs", 1),
            import("x/mod.rs", "y.rs", 4),
            import("y.rs", "x/deep.rs", 1),
        ];
        assert_eq!(found(&files), expected);
    }

    #[test]
    fn a_name_is_followed_to_the_file_that_defines_it() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a/mod.rs", "mod inner;\npub use inner::Thing;\n"),
            ("a/inner.rs", "pub struct Thing;\n"),
            ("b.rs", "use crate::a::Thing;\n"),
        ];
        assert_eq!(found(&files), [import("a/mod.rs", "a/inner.rs", 2), import("b.rs", "a/inner.rs", 1)]);
    }

    #[test]
    fn tests_comments_and_other_crates_do_not_count() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\n"),
            (
                "a.rs",
                "// crate::b::x\nuse other::b;\nfn f() -> impl Sized + use<'static> {}\n#[cfg(test)]\nmod tests {\n use crate::b::x;\n}\n",
            ),
            ("b.rs", "pub fn x() {}\n"),
            ("b/tests.rs", "use crate::a::y;\n"),
        ];
        assert_eq!(found(&files), []);
    }

    #[test]
    fn a_module_is_the_parent_of_the_files_in_its_folder() {
        assert!(is_parent("crates/a/src/x/mod.rs", "crates/a/src/x/y.rs"));
        assert!(is_parent("crates/a/src/x.rs", "crates/a/src/x/y/z.rs"));
        assert!(is_parent("crates/a/src/lib.rs", "crates/a/src/x.rs"));
        assert!(!is_parent("crates/a/src/x.rs", "crates/a/src/xy.rs"));
        assert!(!is_parent("crates/a/src/x/y.rs", "crates/a/src/x/mod.rs"));
    }
}
