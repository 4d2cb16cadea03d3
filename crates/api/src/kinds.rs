//! All kinds with their rules, in a form that does not name their types, for registration with the API server.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use serde_json::Value;

use crate::claims::Claim;
use crate::ledgers::{Room, Take};
use crate::names::NameRule;
use crate::rules::{Immutable, KindRules, Problem};
use crate::{compute, iam, infra, networking, run};

/// An object that does not have the form of its kind's type.
pub type Unreadable = serde_json::Error;

/// Reads the claims of an object.
pub type ReadClaims = fn(&Value) -> Result<Vec<Claim>, Unreadable>;
/// Reads the credentials that an object revokes.
pub type ReadRevokes = fn(&Value) -> Result<Vec<String>, Unreadable>;
/// Reads what an object, given in its stored form, takes from ledgers.
pub type ReadTakes = fn(&[u8]) -> Result<Vec<Take>, Unreadable>;
/// Reads what an object, given in its stored form, gives to ledgers.
pub type ReadGives = fn(&[u8]) -> Result<Vec<Room>, Unreadable>;

/// Returns warnings about an object's new state; given the stored state, if any.
pub type ReadWarnings = fn(&Value, Option<&Value>) -> Vec<String>;

/// A kind with its rules.
pub struct Kind {
    /// Names, schema, columns; with the rules for fields that cannot be changed.
    pub definition: CustomResourceDefinition,
    /// The rule for the names of objects.
    pub names: NameRule,
    /// The fields that cannot be changed.
    pub immutable: &'static [Immutable],
    /// Returns the problems of an object's new state; given the stored state, if any.
    pub problems: fn(&Value, Option<&Value>) -> Vec<Problem>,
    /// Returns warnings about a write.
    pub warnings: Option<ReadWarnings>,
    /// The claims of an object.
    pub claims: Option<ReadClaims>,
    /// Returns the amounts that an object takes from ledgers.
    pub takes: Option<ReadTakes>,
    /// Returns the amounts that an object gives to ledgers.
    pub gives: Option<ReadGives>,
    /// Returns the credentials that an object revokes.
    pub revokes: Option<ReadRevokes>,
}

/// Every kind: registered by the API server and printed by the example `crds`.
pub fn all() -> Vec<Kind> {
    vec![
        Kind::of::<compute::VirtualMachine>(),
        Kind::of::<compute::Disk>(),
        Kind::of::<compute::PlacementGroup>(),
        Kind::of::<compute::DiskImage>(),
        Kind::of::<compute::DiskStorageClass>(),
        Kind::of::<compute::VMVirtualResources>(),
        Kind::of::<networking::VirtualPrivateCloud>(),
        Kind::of::<networking::Subnet>(),
        Kind::of::<run::Service>(),
        Kind::of::<run::Revision>(),
        Kind::of::<iam::Organization>(),
        Kind::of::<iam::ResourceGroup>(),
        Kind::of::<iam::RevokedCredential>(),
        Kind::of::<infra::Host>(),
        Kind::of::<infra::Volume>(),
        Kind::of::<infra::Machine>(),
        Kind::of::<infra::Replica>(),
    ]
}

impl Kind {
    /// The kind of a type.
    pub fn of<K: KindRules>() -> Self {
        let mut definition = K::crd();
        let versions = definition.spec.versions.iter_mut();
        for schema in versions.filter_map(|it| it.schema.as_mut()?.open_api_v3_schema.as_mut()) {
            not_nullable(schema);
            if let Some(spec) = schema.properties.as_mut().and_then(|it| it.get_mut("spec")) {
                let rules = K::IMMUTABLE.iter().map(immutable);
                spec.x_kubernetes_validations.get_or_insert_default().extend(rules);
                spec.x_kubernetes_validations.take_if(|rules| rules.is_empty());
            }
        }
        Kind {
            definition,
            names: K::NAMES,
            immutable: K::IMMUTABLE,
            problems: problems::<K>,
            warnings: K::WARNINGS.map(|_| warnings::<K> as ReadWarnings),
            claims: K::CLAIMS.map(|_| claims::<K> as ReadClaims),
            takes: K::TAKES.map(|_| takes::<K> as ReadTakes),
            gives: K::GIVES.map(|_| gives::<K> as ReadGives),
            revokes: K::REVOKES.map(|_| revokes::<K> as ReadRevokes),
        }
    }
}

fn problems<K: KindRules>(new: &Value, stored: Option<&Value>) -> Vec<Problem> {
    let unreadable = |error: Unreadable| vec![Problem::new("", format!("cannot be read as its kind: {error}"))];
    let mut problems = Vec::new();
    if stored.is_none() {
        let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        problems.extend(K::NAMES.problem(name).map(|problem| Problem::new("metadata.name", problem)));
    }
    let is_same = stored.is_some_and(|stored| stored.get("spec") == new.get("spec"));
    // A change of neither spec nor claims is one of status or metadata: no rule applies.
    if is_same && K::CLAIMS.is_none() {
        return problems;
    }
    let object = match K::deserialize(new) {
        Ok(object) => object,
        Err(error) => return unreadable(error),
    };
    if is_same {
        return problems;
    }
    problems.extend(K::PROBLEMS.map(|check| check(&object)).unwrap_or_default());
    if let (Some(check), Some(stored)) = (K::CHANGES_REFUSED, stored) {
        match K::deserialize(stored) {
            Ok(stored) => problems.extend(check(&object, &stored)),
            Err(error) => return unreadable(error),
        }
    }
    problems
}

/// Returns no warnings for an object that cannot be read: it is refused elsewhere.
fn warnings<K: KindRules>(new: &Value, stored: Option<&Value>) -> Vec<String> {
    let (Some(of), Ok(new)) = (K::WARNINGS, K::deserialize(new)) else { return Vec::new() };
    match stored.map(K::deserialize) {
        None => of(&new, None),
        Some(Ok(stored)) => of(&new, Some(&stored)),
        Some(Err(_)) => Vec::new(),
    }
}

fn claims<K: KindRules>(object: &Value) -> Result<Vec<Claim>, Unreadable> {
    let object = K::deserialize(object)?;
    Ok(K::CLAIMS.map(|claims| claims(&object)).unwrap_or_default())
}

fn revokes<K: KindRules>(object: &Value) -> Result<Vec<String>, Unreadable> {
    let object = K::deserialize(object)?;
    Ok(K::REVOKES.map(|revokes| revokes(&object)).unwrap_or_default())
}

fn takes<K: KindRules>(stored: &[u8]) -> Result<Vec<Take>, Unreadable> {
    let object: K = serde_json::from_slice(stored)?;
    Ok(K::TAKES.map(|takes| takes(&object)).unwrap_or_default())
}

fn gives<K: KindRules>(stored: &[u8]) -> Result<Vec<Room>, Unreadable> {
    let object: K = serde_json::from_slice(stored)?;
    Ok(K::GIVES.map(|gives| gives(&object)).unwrap_or_default())
}

/// The rule of `spec` that keeps a field as it was created. A rule on the field itself would not run when the field comes or goes.
fn immutable(field: &Immutable) -> ValidationRule {
    let rule = match field.path {
        "" => "self == oldSelf".to_owned(),
        path => {
            let parts: Vec<&str> = path.split('.').collect();
            let has = |whole: &str| -> String {
                let prefixes = (1..=parts.len()).map(|length| format!("has({whole}.{})", parts[..length].join(".")));
                prefixes.collect::<Vec<_>>().join(" && ")
            };
            let (new, old) = (has("self"), has("oldSelf"));
            format!("({new}) == ({old}) && (!({new}) || self.{path} == oldSelf.{path})")
        }
    };
    let field_path = (!field.path.is_empty()).then(|| format!(".{}", field.path));
    ValidationRule { rule, message: Some(field.message.to_owned()), field_path, ..ValidationRule::default() }
}

/// An optional field is left out, not null, as everywhere in Kubernetes: what may be null has no type in OpenAPI v2, and
/// `kubectl explain` before 1.27 would show none and nothing below it.
fn not_nullable(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|it| it.values_mut()) {
        not_nullable(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => not_nullable(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(not_nullable),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        not_nullable(values);
    }
}
