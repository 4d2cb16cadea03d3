//! The path of a value in an object, written as Kubernetes does: `spec.disks[0].colour`.
//!
//! A path is a chain of steps on the stack and becomes text only in an error: with the text built on the way down, a long name
//! would be copied for each of the values below it.

use std::fmt;

/// A place in an object.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    /// A declared field, or an entry of a map where Kubernetes writes it like one.
    Field(&'a str),
    /// An entry of a map: `labels[a.b/c]`.
    Key(&'a str),
    /// An item of a list.
    Index(usize),
}

impl<'a> Path<'a> {
    /// The object itself.
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// A field below.
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// An entry of a map below.
    pub(super) fn key(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(name) }
    }

    /// An item below.
    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// Whether it is the object itself.
    pub(super) fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    /// The path in an error; Kubernetes prints `<nil>` for the root.
    pub(super) fn shown(&self) -> String {
        if self.is_root() { "<nil>".to_owned() } else { self.to_string() }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if self.parent.is_none_or(Path::is_root) => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(name) => write!(f, "[{name}]"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_kubernetes_does() {
        let spec = Path::ROOT.field("spec");
        let labels = spec.field("labels");
        let list = spec.field("disks");
        assert_eq!(labels.key("a.b/c").to_string(), "spec.labels[a.b/c]");
        assert_eq!(list.index(2).field("name").to_string(), "spec.disks[2].name");
        assert_eq!(Path::ROOT.to_string(), "");
        assert_eq!(Path::ROOT.shown(), "<nil>");
        assert_eq!(Path::ROOT.key("a").to_string(), "[a]");
    }
}
