//! Service -> Revision, and where requests go.
//!
//! Every generation of a service's template makes one revision, named after it. All traffic goes to the newest revision
//! that was ready; one that never becomes ready never gets any, and deploying an earlier template again rolls back.
//! Who writes what: this controller writes Service.status and Revision.spec.

mod run;
mod status;
#[cfg(test)]
mod tests;

pub use run::run;
pub use status::{host_name, revision_name};
