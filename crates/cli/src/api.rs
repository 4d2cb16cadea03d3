//! Requests that typed clients do not make: tables as the server prints them, and raw subresources.

use anyhow::Context;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;

use crate::config::Cloud;

const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The path of a namespaced object or collection.
pub fn path(cloud: &Cloud, group: &str, plural: &str, rest: &str) -> String {
    format!("/apis/{group}/v1alpha1/namespaces/{}/{plural}{rest}", cloud.namespace)
}

/// Sends a request without a body; an answer that is no success is the error it names.
pub async fn get(cloud: &Cloud, path: &str, accept: &str) -> anyhow::Result<Response<Body>> {
    let request = Request::get(path).header(http::header::ACCEPT, accept).body(Body::empty())?;
    send(cloud, request).await
}

/// Sends a request; an answer that is no success is the error it names.
pub async fn send(cloud: &Cloud, request: Request<Body>) -> anyhow::Result<Response<Body>> {
    let response =
        cloud.client.send(request).await.context("the cloud does not answer; `evrocd status` says what runs")?;
    if response.status().is_success() || response.status().is_informational() {
        return Ok(response);
    }
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let message = match serde_json::from_slice::<Status>(&body) {
        Ok(status) => status.message,
        Err(_) => format!("{code}: {}", String::from_utf8_lossy(&body).trim()),
    };
    Err(Refused { code, message }.into())
}

/// An unsuccessful response, with the server's message.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Its HTTP status.
    pub code: StatusCode,
    message: String,
}

/// A collection as the server prints it.
pub async fn table(cloud: &Cloud, path: &str) -> anyhow::Result<Value> {
    let response = get(cloud, path, AS_TABLE).await?;
    let body = response.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).context("the answer is not JSON")
}
