//! The kinds that this cloud serves: those of `evroc-api` with their rules, as the API server registers them.

use std::sync::Arc;

use evroc_api::kinds::Kind;
use evroc_api::ledgers;
use evroc_apiserver::kind::{ClaimsFn, GivesFn, RevokesFn, TakesFn, WarnFn};
use evroc_apiserver::{CrdError, Limit, ResourceKind, Room, Take};

use serde_json::Value;

use crate::refusals;

/// All kinds that have a definition.
///
/// # Errors
/// If a definition cannot be registered.
pub fn all() -> Result<Vec<ResourceKind>, CrdError> {
    evroc_api::kinds::all().into_iter().map(registered).collect()
}

fn registered(kind: Kind) -> Result<ResourceKind, CrdError> {
    let definition = serde_json::to_value(&kind.definition).map_err(CrdError::Malformed)?;
    let mut registered = ResourceKind::from_crd(&definition)?;
    let name = registered.qualified_kind();
    registered.claims = kind.claims.map(|claims| {
        let claims = move |object: &Value| match claims(object) {
            Ok(claims) => claims.into_iter().map(refusals::claim).collect(),
            // A new state was refused before for this reason: this is a stored one, whose claims stay where they are.
            Err(error) => {
                tracing::error!(%error, kind = name, "the claims of a stored object cannot be read");
                Vec::new()
            }
        };
        Arc::new(claims) as ClaimsFn
    });
    registered.takes = kind
        .takes
        .map(|takes| Arc::new(move |stored: &[u8]| Ok(takes(stored)?.into_iter().map(take).collect())) as TakesFn);
    registered.gives = kind
        .gives
        .map(|gives| Arc::new(move |stored: &[u8]| Ok(gives(stored)?.into_iter().map(room).collect())) as GivesFn);
    registered.revokes = kind.revokes.map(|revokes| {
        Arc::new(move |object: &Value| {
            revokes(object).unwrap_or_else(|error| {
                tracing::error!(%error, "a stored revocation cannot be read");
                Vec::new()
            })
        }) as RevokesFn
    });
    registered.warn = kind.warnings.map(|warnings| Arc::new(warnings) as WarnFn);
    let problems = kind.problems;
    registered.validate = Some(Arc::new(move |new, old| refusals::field_errors(new, problems(new, old))));
    Ok(registered)
}

fn take(take: ledgers::Take) -> Take {
    let limit = take.limit.map(|limit| Limit { amount: limit.amount, message: limit.message });
    Take { ledger: take.ledger, resource: take.resource.into(), amount: take.amount, field: take.field.into(), limit }
}

fn room(room: ledgers::Room) -> Room {
    Room { ledger: room.ledger, resource: room.resource.into(), amount: room.amount }
}
