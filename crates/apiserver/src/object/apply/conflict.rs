//! Conflicts of an apply with fields that other managers own.

use super::managers::ManagerId;
use super::path::{Step, display};
use serde_json::{Value, json};

/// One field of another manager that conflicts with an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub(super) id: ManagerId,
    pub(super) path: Vec<Step>,
}

impl Conflict {
    /// The manager as in messages: `"kubectl-edit" using v1`.
    pub fn manager(&self) -> String {
        self.id.describe()
    }

    /// The field: `.spec.size`.
    pub fn field(&self) -> String {
        display(&self.path)
    }
}

/// The message of the 409: all conflicts, grouped by manager.
pub(super) fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager(), only.field());
    }
    let mut lines: Vec<String> = Vec::new();
    let mut last: Option<&ManagerId> = None;
    for conflict in conflicts {
        if last != Some(&conflict.id) {
            lines.push(format!("conflicts with {}:", conflict.manager()));
            last = Some(&conflict.id);
        }
        lines.push(format!("- {}", conflict.field()));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// `details.causes` of the 409.
pub(super) fn causes(conflicts: &[Conflict]) -> Value {
    conflicts
        .iter()
        .map(|c| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", c.manager()), "field": c.field()})
        })
        .collect()
}
