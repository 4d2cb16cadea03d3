//! `evroc iam`: tokens for programs, and for kubectl.

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::api;
use crate::config::Cloud;

/// The commands of `evroc iam`.
#[derive(Subcommand)]
pub enum Iam {
    /// Print a token with your identity: for `Authorization: Bearer` and `kubectl --token`
    GetAccessToken {
        /// Seconds until it ends, from 60 to 86400
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(60..=86_400))]
        expiration_seconds: u64,
        /// The token alone, or the document that kubectl's exec plug-ins print
        #[arg(long, short, value_enum, default_value_t = Form::Token)]
        output: Form,
    },
}

/// How a token is printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum Form {
    /// The token alone.
    Token,
    /// `ExecCredential` of client.authentication.k8s.io.
    ExecCredential,
}

/// Runs a command.
pub async fn run(cloud: &Cloud, Iam::GetAccessToken { expiration_seconds, output }: Iam) -> anyhow::Result<()> {
    let question = json!({
        "apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "AccessToken", "metadata": {},
        "spec": {"expirationSeconds": expiration_seconds},
    });
    let request = Request::post("/apis/iam.evroclabs.net/v1alpha1/accesstokens")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Body::from(serde_json::to_vec(&question)?))?;
    let body = api::send(cloud, request).await?.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
    let status = &answer["status"];
    let token = status["token"].as_str().context("the answer has no status.token")?;
    match output {
        Form::Token => println!("{token}"),
        Form::ExecCredential => println!(
            "{}",
            json!({
                "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                "status": {"token": token, "expirationTimestamp": status["expirationTimestamp"]},
            })
        ),
    }
    Ok(())
}
