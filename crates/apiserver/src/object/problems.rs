//! Problems of a document that are reported together, bounded in number and size.

use std::collections::HashSet;

/// Problems of one kind that are kept of one document, as in the decoder of Kubernetes: further ones are as many again to read, and to send.
pub(crate) const MAX_PROBLEMS: usize = 100;
/// Bytes of their paths, after which no further one is kept: a path may be as long as the document.
pub(crate) const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// Paths of problems, each once and no more than an answer can hold.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    paths: Vec<String>,
    seen: HashSet<String>,
    bytes: usize,
}

impl Problems {
    /// Whether further ones are left out.
    pub(crate) fn is_full(&self) -> bool {
        self.paths.len() >= MAX_PROBLEMS || self.bytes >= MAX_PROBLEM_BYTES
    }

    /// Keeps a path; it is made only if it is kept.
    pub(crate) fn add(&mut self, path: impl FnOnce() -> String) {
        if self.is_full() {
            return;
        }
        let path = path();
        if self.seen.insert(path.clone()) {
            self.bytes += path.len();
            self.paths.push(path);
        }
    }

    /// The paths in the order in which they were found.
    pub(crate) fn into_paths(self) -> Vec<String> {
        self.paths
    }
}
