//! Service -> Revision, and where requests go.
//!
//! Every generation of a service's template makes one revision, named after it. All traffic goes to the newest revision
//! that accepted connections; one that never does never gets any, and deploying an earlier template again rolls back. The newest
//! twenty revisions are kept, and those with traffic.
//! Who writes what: this controller writes Service.status and Revision.spec.

mod history;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use run::run;
