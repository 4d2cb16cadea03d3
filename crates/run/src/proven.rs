//! Whether a revision has ever accepted connections: then requests may go to it, for good.

use evroc_api::conditions::{self, READY};
use evroc_api::run::RevisionStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The condition that is True from the first time on that a container of the revision accepted connections.
pub(crate) const PROVEN: &str = "Proven";

/// The condition that proves a revision. Earlier versions kept it in the condition Ready.
pub(crate) fn proof(status: &RevisionStatus) -> Option<&Condition> {
    let condition = match conditions::get(&status.conditions, PROVEN) {
        Some(proven) => Some(proven),
        None => conditions::get(&status.conditions, READY),
    };
    condition.filter(|condition| condition.status == "True")
}
