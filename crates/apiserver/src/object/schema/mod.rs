//! A structural schema (the `openAPIV3Schema` of a CustomResourceDefinition version), compiled once and then used for
//! pruning, defaulting, validation, server-side apply and publishing. Pure: no I/O, no clock.

use serde_json::Value;

pub mod decode;
pub mod status;

mod cel;
use cel::Scope;
#[cfg(fuzzing)]
pub(crate) use cel::is_running as is_rule_running;
mod defaults;
mod embedded;
mod formats;
mod lists;
mod node;
mod path;
mod pattern;
mod prune;
mod types;
mod validate;

pub use cel::THREAD_STACK_BYTES;
pub use formats::is_go_duration;

pub use crate::object::field_error::{FieldError, Reason, UnknownField};
pub use node::Node;
pub use types::{ListType, MapType, Type};

/// A schema that cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The schema breaks a rule of structural schemas.
    #[error("schema at {path}: {problem}")]
    NotStructural {
        /// The place in the schema, e.g. `.properties[spec].items`.
        path: String,
        /// The fault.
        problem: String,
    },
    /// A `pattern` that is not a regular expression.
    #[error("schema at {path}: pattern {pattern:?} cannot be compiled")]
    Pattern {
        /// The place in the schema.
        path: String,
        /// The pattern.
        pattern: String,
        /// Why.
        #[source]
        source: Box<regex::Error>,
    },
    /// A CEL rule that does not compile.
    #[error("schema at {path}: rule {rule:?} cannot be compiled: {problem}")]
    Rule {
        /// The place in the schema.
        path: String,
        /// The expression.
        rule: String,
        /// Why.
        problem: String,
    },
}

const RULES_NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// A compiled schema of one kind at one version.
#[derive(Debug)]
pub struct Model {
    root: Node,
    source: Value,
}

impl Model {
    /// Compiles an `openAPIV3Schema`. `apiVersion`, `kind` and `metadata` need not be declared.
    pub fn compile(schema: &Value) -> Result<Model, SchemaError> {
        Ok(Model { root: node::compile(schema)?, source: schema.clone() })
    }

    /// The schema it was compiled from.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// The compiled root.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Removes the fields that the schema does not know and returns their paths, sorted.
    pub fn prune(&self, object: &mut Value) -> Vec<UnknownField> {
        prune::prune(object, &self.root)
    }

    /// Returns the error if an embedded resource's metadata cannot be read at all.
    pub fn unreadable(&self, object: &Value) -> Option<FieldError> {
        embedded::unreadable(object, &self.root)
    }

    /// Fills in the defaults of the schema.
    pub fn default(&self, object: &mut Value) {
        defaults::default(object, &self.root);
    }

    /// Fills in the defaults of the schema after server-side apply: a null that is not allowed is kept, and refused later.
    pub fn default_applied(&self, object: &mut Value) {
        defaults::fill(object, &self.root);
    }

    /// Checks an object, on update also against the old one, and returns all errors in Kubernetes' order. `metadata` is checked
    /// only in embedded resources (see `meta_validate`).
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.validate_after(object, old, &[])
    }

    /// As [`Model::validate`], after `earlier` errors: rules are not evaluated if these break what rules may rely on.
    pub fn validate_after(&self, object: &Value, old: Option<&Value>, earlier: &[FieldError]) -> Vec<FieldError> {
        let mut errors = validate::validate(object, old, &self.root);
        errors.extend(embedded::validate(object, &self.root));
        let before: Vec<FieldError> = errors.iter().chain(earlier).cloned().collect();
        errors.extend(self.validate_rules_after(object, old, &before, Scope::Object));
        errors
    }

    /// The same for a write of `status` alone, which never fails for the rest: rules about what such a write cannot change are not
    /// evaluated. Kubernetes evaluates them; it drops what most of them find, but not errors in the evaluation, nor that they
    /// are too expensive.
    pub fn validate_status_after(&self, object: &Value, old: &Value, earlier: &[FieldError]) -> Vec<FieldError> {
        let mut errors = validate::validate(object, Some(old), &self.root);
        errors.extend(embedded::validate(object, &self.root).into_iter().filter(|it| it.path.starts_with("status")));
        let before: Vec<FieldError> = errors.iter().chain(earlier).cloned().collect();
        errors.extend(self.validate_rules_after(object, Some(old), &before, Scope::Status));
        errors
    }

    /// Checks an object of another kind: its embedded resources, list keys and rules, but not its fields.
    pub fn validate_other_kind(&self, object: &Value, old: Option<&Value>, earlier: &[FieldError]) -> Vec<FieldError> {
        let mut errors = embedded::validate(object, &self.root);
        let before: Vec<FieldError> = earlier.iter().chain(&errors).cloned().collect();
        errors.extend(self.validate_rules_after(object, old, &before, Scope::Object));
        errors
    }

    /// Checks list keys and rules.
    fn validate_rules_after(
        &self,
        object: &Value,
        old: Option<&Value>,
        earlier: &[FieldError],
        scope: Scope,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        // A list that was already invalid does not prevent updates of other fields.
        if old.is_none_or(|old| lists::validate(old, &self.root).is_empty()) {
            errors.extend(lists::validate(object, &self.root));
        }
        if !self.root.has_rules {
            return errors;
        }
        // Rules may rely on the schema, so they run only on objects that conform to it.
        if errors.iter().chain(earlier).any(|e| e.reason.blocks_rules()) {
            errors.push(FieldError::invalid("<nil>", Value::Null, RULES_NOT_CHECKED));
        } else {
            errors.extend(cel::validate(object, old, &self.root, scope));
        }
        errors
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod proptests;
