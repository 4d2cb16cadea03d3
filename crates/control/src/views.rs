//! The endpoints of organisations and resource groups: `/clusters/root:<organisation>[:<resource group>]`.
//!
//! A resource group's endpoint shows its namespace under the names that clients use: the group's, the organisation's, `default`.
//! `root:<resource group>` is accepted where no organisation has that name. An organisation's own endpoint has no namespace.

use evroc_api::iam::{Organization, ResourceGroup};
use evroc_apiserver::views::{Objects, View, Views};
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

impl Views for Endpoints {
    fn view(&self, name: &str, objects: &Objects<'_>) -> Result<Option<View>, String> {
        let parts: Vec<&str> = name.split(':').collect();
        let (organization, group) = match parts.as_slice() {
            [ROOT, organization] if get::<Organization>(objects, organization).is_some() => {
                return Ok(Some(View::default()));
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
        Ok(Some(View { namespace: namespace.to_owned(), aliases }))
    }
}
