//! The API over HTTP, judged by a plain client, by `kube` and by kubectl.

mod access;
mod claims;
mod collections;
mod connections;
mod core_kinds;
mod crud;
mod discovery;
mod fairness;
mod garbage;
mod kube_client;
mod kubectl;
mod ledgers;
mod lists;
mod metrics;
mod namespaces;
mod network;
mod patches;
mod quotas;
mod restart;
mod revocations;
mod support;
mod views;
mod watches;
