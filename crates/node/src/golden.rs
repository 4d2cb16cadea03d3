//! Comparing text with files in the source tree; `UPDATE=1` writes them.

use std::path::Path;

/// Compares `text` with `src/container/golden/<name>` or `src/net/golden/<name>`.
#[track_caller]
pub(crate) fn check(name: &str, text: &str) {
    check_in("container", name, text);
}

/// Compares `text` with `src/<folder>/golden/<name>`.
#[track_caller]
pub(crate) fn check_in(folder: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder).join("golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == text, "{} differs; UPDATE=1 rewrites it. Found:\n{text}", path.display());
}
