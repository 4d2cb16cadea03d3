//! Moves ownership when an object changes.

use super::compare::{Comparison, compare, fields_of};
use super::conflict::Conflict;
use super::managers::{ManagerId, Managers, Operation, Owned};
use super::merge::{merge, remove, with_structs};
use super::path::Step;
use super::reconcile::reconcile;
use super::set::FieldSet;
use super::types::Ty;
use serde_json::Value;
use std::sync::LazyLock;

/// Fields without an owner: identity and the fields that the server fills in.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let mut set = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[Step::field(name)]);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[Step::field("metadata"), Step::field(name)]);
    }
    set
});

/// Returns the fields that a write through this endpoint cannot change: it neither gains nor loses them.
pub(super) fn reset_fields(subresource: &str, has_status: bool) -> FieldSet {
    let names: &[&str] = match subresource {
        "" if has_status => &["status"],
        "status" => &["metadata", "spec"],
        _ => &[],
    };
    let mut set = FieldSet::default();
    for name in names {
        set.insert(&[Step::field(name)]);
    }
    set
}

/// Removes changed and deleted fields from all other managers; without `force`, a changed field is a conflict.
fn displace(
    managers: &mut Managers,
    changed: &FieldSet,
    removed: &FieldSet,
    writer: Option<&ManagerId>,
    force: bool,
) -> Result<(), Vec<Conflict>> {
    let others = |id: &ManagerId| Some(id) != writer;
    if !force {
        let mut conflicts = Vec::new();
        for (id, owned) in managers.iter().filter(|(id, _)| others(id)) {
            let paths = owned.fields.intersection(changed).paths();
            conflicts.extend(paths.into_iter().map(|path| Conflict { id: id.clone(), path }));
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    for (_, owned) in managers.iter_mut().filter(|(id, _)| others(id)) {
        owned.fields.remove(changed);
        owned.fields.remove(removed);
    }
    managers.retain(|_, owned| !owned.fields.is_empty());
    Ok(())
}

/// Adapts ownership that was recorded under an older schema.
fn follow_schema(managers: &mut Managers, ty: Ty<'_>) {
    for owned in managers.values_mut() {
        owned.fields = reconcile(&owned.fields, ty);
    }
}

fn drop_unowned(managers: &mut Managers) {
    for owned in managers.values_mut() {
        owned.fields.remove(&UNOWNED);
    }
    managers.retain(|_, owned| !owned.fields.is_empty());
}

/// Records an ordinary write: from now on only the writer owns the fields that it changed.
pub(super) fn update(
    live: &Value,
    new: &Value,
    ty: Ty<'_>,
    managers: &mut Managers,
    writer: &ManagerId,
    ignored: &FieldSet,
    now: &str,
) {
    follow_schema(managers, ty);
    let Comparison { added, modified, removed } = compare(live, new, ty).without(ignored);
    let mut taken = modified;
    taken.extend(added);
    // The writer's own entry loses changed fields like any other and gets them back below, so its time changes only if something
    // changed.
    let _ = displace(managers, &taken, &removed, None, true);
    taken.remove(&UNOWNED);
    if !taken.is_empty() {
        let owned = managers.entry(writer.clone()).or_insert_with(|| Owned {
            fields: FieldSet::default(),
            api_version: writer.api_version.clone(),
            time: None,
        });
        owned.fields.extend(taken);
        owned.time = Some(now.to_string());
    }
    drop_unowned(managers);
}

/// An apply, which returns the merged object, or `None` if nothing changed. `api_version` is the version applied with.
pub(super) struct Apply<'a> {
    pub ty: Ty<'a>,
    pub ignored: FieldSet,
    pub writer: ManagerId,
    pub api_version: &'a str,
    pub now: &'a str,
}

impl Apply<'_> {
    pub(super) fn run(
        &self,
        live: &Value,
        applied: &Value,
        managers: &mut Managers,
        force: bool,
    ) -> Result<Option<Value>, Vec<Conflict>> {
        follow_schema(managers, self.ty);
        let merged = merge(live, applied, self.ty);
        let last = managers.get(&self.writer).cloned();
        let mut fields = fields_of(applied, self.ty);
        fields.remove_recursively(&self.ignored);
        let time = last.as_ref().and_then(|l| l.time.clone());
        managers.insert(self.writer.clone(), Owned { fields, api_version: self.api_version.to_string(), time });
        let new = match last.filter(|l| !l.fields.is_empty()) {
            Some(last) => self.without_abandoned(&merged, &last.fields, managers),
            None => merged,
        };
        let Comparison { added, modified, removed } = compare(live, &new, self.ty).without(&self.ignored);
        let mut changed = modified;
        changed.extend(added);
        displace(managers, &changed, &removed, Some(&self.writer), force)?;
        drop_unowned(managers);
        let changed = *live != new;
        // A new manager whose apply changes nothing has no time, as in Kubernetes.
        if let Some(owned) = managers.get_mut(&self.writer).filter(|_| changed) {
            owned.time = Some(self.now.to_string());
        }
        Ok(changed.then_some(new))
    }

    /// Removes fields that the writer applied last time, does not apply now, and no other manager owns.
    fn without_abandoned(&self, merged: &Value, last: &FieldSet, managers: &Managers) -> Value {
        let structs = |set: &FieldSet| with_structs(set, Some(self.ty));
        let last = structs(last);
        let pruned = remove(merged, &last, self.ty);
        let merged_fields = structs(&fields_of(merged, self.ty));
        // Keep fields that other managers own…
        let owned = managers.values().fold(FieldSet::default(), |sum, m| sum.union(&m.fields));
        let kept = structs(&fields_of(&pruned, self.ty)).union(&structs(&owned));
        let pruned = remove(merged, &merged_fields.difference(&kept), self.ty);
        // …and fields that were removed with their parent although the writer did not own them.
        let pruned_fields = structs(&fields_of(&pruned, self.ty));
        remove(merged, &merged_fields.difference(&pruned_fields).intersection(&last), self.ty)
    }
}

/// Returns the id of a writer.
pub(super) fn writer_id(name: &str, operation: Operation, api_version: &str, subresource: &str) -> ManagerId {
    ManagerId {
        name: if name.is_empty() { "unknown".to_string() } else { name.to_string() },
        operation,
        api_version: if operation == Operation::Apply { String::new() } else { api_version.to_string() },
        subresource: subresource.to_string(),
    }
}
