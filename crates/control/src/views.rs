//! The endpoints of organisations and resource groups: `/clusters/root:<organisation>[:<resource group>]`.
//!
//! A resource group's endpoint shows its namespace under the names that clients use: the group's, the organisation's, `default`.
//! `root:<resource group>` is accepted where no organisation has that name. An organisation's own endpoint has no namespace.
//!
//! A view hides other tenants' objects: it lists one organisation, an organisation's endpoint lists only that organisation's resource
//! groups, and a group's endpoint lists that group. Hosts and what runs on them belong to the platform, and no view serves them.

use evroc_api::iam::{Organization, ResourceGroup};
use evroc_api::infra::Host;
use evroc_apiserver::ResourceKind;
use evroc_apiserver::views::{ObjectFilter, Objects, View, Views};
use kube::Resource;
use serde_json::Value;

/// The part of every name before the first colon.
const ROOT: &str = "root";

/// The endpoints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Endpoints;

fn get<K: Resource<DynamicType = ()>>(objects: &Objects<'_>, name: &str) -> Option<Value> {
    objects.get(&K::group(&()), &K::version(&()), &K::plural(&()), name)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Shows only those objects of the kind `K` that have this value.
fn only<K: Resource<DynamicType = ()>>(field: &str, value: &str) -> ObjectFilter {
    ObjectFilter { kind: format!("{}.{}", K::plural(&()), K::group(&())), field: field.into(), value: value.into() }
}

impl Views for Endpoints {
    fn view(&self, name: &str, objects: &Objects<'_>) -> Result<Option<View>, String> {
        let parts: Vec<&str> = name.split(':').collect();
        let (organization, group) = match parts.as_slice() {
            [ROOT, organization] if get::<Organization>(objects, organization).is_some() => {
                let filters = vec![
                    only::<Organization>("metadata.name", organization),
                    only::<ResourceGroup>("spec.organization", organization),
                ];
                return Ok(Some(View { filters, ..View::default() }));
            }
            [ROOT, group] => (None, *group),
            [ROOT, organization, group] => (Some(*organization), *group),
            _ => return Ok(None),
        };
        let Some(found) = get::<ResourceGroup>(objects, group) else { return Ok(None) };
        let owner = text(&found, "/spec/organization");
        if organization.is_some_and(|organization| organization != owner) {
            return Ok(None);
        }
        let namespace = text(&found, "/status/namespace");
        if namespace.is_empty() {
            return Err(format!("resource group {group:?} is not ready yet: its namespace is being made; try again"));
        }
        let mut aliases = vec![group.to_owned(), owner.to_owned(), "default".to_owned()];
        aliases.retain(|alias| !alias.is_empty());
        let filters = vec![only::<Organization>("metadata.name", owner), only::<ResourceGroup>("metadata.name", group)];
        Ok(Some(View { namespace: namespace.to_owned(), aliases, filters }))
    }

    fn serves(&self, kind: &ResourceKind) -> bool {
        kind.group != Host::group(&())
    }
}
